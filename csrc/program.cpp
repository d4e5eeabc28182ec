// Runs a recorded program: one call for all the operations of a step.
#include <cstring>

#include "context.h"
#include "experts.h"
#include "packing.h"

namespace novacron {
namespace {

template <class Call>
const Call& as(const void* call) {
  return *static_cast<const Call*>(call);
}

void compute(Context& context, int64_t kind, const void* call) {
  const Level& level = context.level;
  ThreadPool& pool = context.pool;
  switch (kind) {
    case kLinear: return level.linear(pool, as<LinearCall>(call));
    case kNorm: return level.rms_norm(pool, as<NormCall>(call));
    case kRotate: return level.rotate(pool, as<RotateCall>(call));
    case kGated: return level.gated(pool, as<GatedCall>(call));
    case kAttention: return level.attend(pool, as<AttentionCall>(call));
    case kLookup: return lookup(pool, as<LookupCall>(call));
    case kMap: return level.map(pool, as<MapCall>(call));
    case kExperts: return mix_experts(context, as<ExpertsCall>(call));
  }
}

}  // namespace
}  // namespace novacron

void novacron_run(novacron::Context* context, const novacron::Program* program,
                  const int64_t* sizes) {
  char* calls = static_cast<char*>(program->calls);
  for (int64_t index = 0; index < program->num_sizings; ++index) {
    const novacron::Sizing& sizing = program->sizings[index];
    memcpy(calls + sizing.offset, sizes + sizing.size, sizeof(int64_t));
  }
  context->pool.wake();
  for (int64_t index = 0; index < program->num_operations; ++index) {
    const novacron::Operation& operation = program->operations[index];
    novacron::compute(*context, operation.kind, calls + operation.offset);
  }
  context->pool.park();
}
