// Runs a recorded program: one call for all the operations of a step.
#include <cstring>

#include "collectives.h"
#include "context.h"
#include "experts.h"
#include "packing.h"

namespace novacron {
namespace {

template <class Call>
const Call& as(const void* call) {
  return *static_cast<const Call*>(call);
}

// Whether it succeeded.
bool compute(Context& context, int64_t kind, const void* call) {
  const Level& level = context.level;
  ThreadPool& pool = context.pool;
  switch (kind) {
    case kLinear: level.linear(pool, as<LinearCall>(call)); break;
    case kNorm: level.rms_norm(pool, as<NormCall>(call)); break;
    case kRotate: level.rotate(pool, as<RotateCall>(call)); break;
    case kGated: level.gated(pool, as<GatedCall>(call)); break;
    case kAttention: level.attend(pool, as<AttentionCall>(call)); break;
    case kLookup: lookup(pool, as<LookupCall>(call)); break;
    case kMap: level.map(pool, as<MapCall>(call)); break;
    case kExperts: return mix_experts(context, as<ExpertsCall>(call));
    case kAddPartials: return add_partials(context, as<AddPartialsCall>(call));
    case kMeet: return meet(context, as<MeetCall>(call));
  }
  return true;
}

}  // namespace
}  // namespace novacron

int32_t novacron_run(novacron::Context* context, const novacron::Program* program,
                     const int64_t* sizes) {
  char* calls = static_cast<char*>(program->calls);
  for (int64_t index = 0; index < program->num_sizings; ++index) {
    const novacron::Sizing& sizing = program->sizings[index];
    memcpy(calls + sizing.offset, sizes + sizing.size, sizeof(int64_t));
  }
  context->pool.wake();
  bool succeeds = true;
  for (int64_t index = 0; succeeds && index < program->num_operations; ++index) {
    const novacron::Operation& operation = program->operations[index];
    succeeds = novacron::compute(*context, operation.kind, calls + operation.offset);
  }
  context->pool.park();
  return succeeds ? 0 : 1;
}
