// What ranks have computed of the same outputs, each with its part of the inputs, becomes one.
//
// The sums are added as linear.h adds segments, so that the ranks' result is that of a single one.
#pragma once

#include "elementwise.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

NOVACRON_INLINE Floats sum_of_ranks(const float* sums, int64_t stride, int ranks, int64_t count) {
  Floats total = load_up_to(sums, count);
  if (ranks > 1) total += load_up_to(sums + stride, count);
  if (ranks > 2) {
    total += load_up_to(sums + 2 * stride, count) + load_up_to(sums + 3 * stride, count);
  }
  return total;
}

template <class T>
void add_partials_of(ThreadPool& pool, const AddPartialsCall& call) {
  const T* bias = static_cast<const T*>(call.bias);
  parallel_rows(pool, call.rows, call.size * call.ranks, [&](int64_t row) {
    const float* sums = call.partials + row * call.size;
    const T* residual = static_cast<const T*>(call.residual);
    if (residual != nullptr) residual += row * call.residual_stride;
    T* out = static_cast<T*>(call.out) + row * call.out_stride;
    for_vectors(call.size, [&](int64_t i, int64_t count) {
      Floats total = sum_of_ranks(sums + i, call.rank_stride, call.ranks, count);
      if (bias != nullptr) total += load_up_to(bias + i, count);
      if (residual != nullptr) total += load_up_to(residual + i, count);
      store_up_to(out + i, total, count);
    });
  });
}

void add_partials(ThreadPool& pool, const AddPartialsCall& call) {
  if (call.type == kFloat32) {
    add_partials_of<float>(pool, call);
  } else {
    add_partials_of<BFloat16>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
