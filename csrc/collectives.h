// Operations that the ranks of a group do together. Each returns whether the group is still whole; if
// not, its result means nothing.
#pragma once

#include "api.h"
#include "context.h"

namespace novacron {

bool add_partials(Context& context, const AddPartialsCall& call);
bool meet(Context& context, const MeetCall& call);

}  // namespace novacron
