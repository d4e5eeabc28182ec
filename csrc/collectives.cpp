#include "collectives.h"

#include <cstring>

#include "rank_group.h"

namespace novacron {

bool add_partials(Context& context, const AddPartialsCall& call) {
  const int64_t part = call.rows * call.size * static_cast<int64_t>(sizeof(float));
  if (!call.group->wait(part)) return false;
  context.level.add_partials(context.pool, call);
  return true;
}

bool meet(const MeetCall& call) {
  if (!call.group->wait(call.rows * call.row_bytes / call.group->size())) return false;
  if (call.to != nullptr) memcpy(call.to, call.from, call.rows * call.row_bytes);
  return true;
}

}  // namespace novacron
