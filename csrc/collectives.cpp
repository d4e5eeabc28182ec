#include "collectives.h"

#include <cstring>

#include "rank_group.h"

namespace novacron {

namespace {

// Threads that watch for work would take cores from whoever brings the other ranks' parts.
bool exchange_rows(Context& context, Exchange exchange, int64_t rows) {
  const bool was_awake = context.pool.is_awake();
  context.pool.park();
  const bool succeeds = exchange(rows) == 0;
  if (was_awake) context.pool.wake();
  return succeeds;
}

}  // namespace

bool add_partials(Context& context, const AddPartialsCall& call) {
  const int64_t part = call.rows * call.size * static_cast<int64_t>(sizeof(float));
  const bool succeeds = call.exchange != nullptr
                            ? exchange_rows(context, call.exchange, call.rows)
                            : call.group->wait(part);
  if (!succeeds) return false;
  context.level.add_partials(context.pool, call);
  return true;
}

bool meet(Context& context, const MeetCall& call) {
  const bool succeeds = call.exchange != nullptr
                            ? exchange_rows(context, call.exchange, call.rows)
                            : call.group->wait(call.rows * call.row_bytes / call.group->size());
  if (!succeeds) return false;
  if (call.to != nullptr) memcpy(call.to, call.from, call.rows * call.row_bytes);
  return true;
}

}  // namespace novacron
