// A mixture of experts: for each token the sum of a few feed-forward networks, which a router picks.
#pragma once

#include "api.h"
#include "context.h"

namespace novacron {

// False if ranks share the experts and their group is lost.
bool mix_experts(Context& context, const ExpertsCall& call);

}  // namespace novacron
