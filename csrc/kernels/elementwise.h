// Norms, rotation, gated activations and what is done to single elements: one row at a time, in float32 inside.
#pragma once

#include <cmath>

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kElementsWorthClaiming = 8 * 1024;

// Shares out rows of `size` elements.
template <class Body>
void parallel_rows(ThreadPool& pool, int64_t rows, int64_t size, Body body) {
  parallel(pool, rows, divide_up(kElementsWorthClaiming, size + 1),
           [&](int64_t row, int64_t last) {
             for (; row < last; ++row) body(row);
           });
}

template <class T>
float sum_of_squares(const T* x, int64_t size) {
  constexpr int kChains = 4;
  Floats sums[kChains] = {};
  int64_t index = 0;
  for (; index + kChains * kLanes <= size; index += kChains * kLanes) {
    for (int chain = 0; chain < kChains; ++chain) {
      const Floats part = load(x + index + chain * kLanes);
      sums[chain] = multiply_add(part, part, sums[chain]);
    }
  }
  for_vectors(size - index, [&](int64_t offset, int64_t count) {
    const Floats part = load_up_to(x + index + offset, count);
    sums[0] = multiply_add(part, part, sums[0]);
  });
  return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T, class W>
void rms_norm_of(ThreadPool& pool, const NormCall& call) {
  const W* weight = static_cast<const W*>(call.weight);
  parallel_rows(pool, call.outer * call.inner, call.size, [&](int64_t row) {
    const T* x = static_cast<const T*>(call.x) + row / call.inner * call.outer_stride +
                 row % call.inner * call.inner_stride;
    T* out = static_cast<T*>(call.out) + row * call.size;
    const T* residual = static_cast<const T*>(call.residual);
    const float mean = sum_of_squares(x, call.size) / static_cast<float>(call.size);
    const Floats factor = broadcast(1.0f / sqrtf(mean + call.epsilon));
    for_vectors(call.size, [&](int64_t index, int64_t count) {
      Floats normed = load_up_to(x + index, count) * factor * load_up_to(weight + index, count);
      if (residual != nullptr) normed += load_up_to(residual + row * call.size + index, count);
      store_up_to(out + index, normed, count);
    });
  });
}

void rms_norm(ThreadPool& pool, const NormCall& call) {
  if (call.type == kFloat32) {
    rms_norm_of<float, float>(pool, call);
  } else if (call.weight_type == kFloat32) {
    rms_norm_of<BFloat16, float>(pool, call);
  } else {
    rms_norm_of<BFloat16, BFloat16>(pool, call);
  }
}

template <class T>
void rotate_head(const T* x, const T* cosine, const T* sine, T* out, int64_t half) {
  for_vectors(half, [&](int64_t i, int64_t count) {
    const Floats left = load_up_to(x + i, count), right = load_up_to(x + half + i, count);
    const Floats along = load_up_to(cosine + i, count), across = load_up_to(sine + i, count);
    store_up_to(out + i, multiply_add(right, -across, left * along), count);
    store_up_to(out + half + i, multiply_add(left, across, right * along), count);
  });
}

template <class T>
void rotate_of(ThreadPool& pool, const RotateCall& call) {
  const int64_t half = call.rotary_dim / 2;
  parallel_rows(pool, call.tokens, call.heads * call.head_dim, [&](int64_t token) {
    const T* cosine = static_cast<const T*>(call.cosine) + call.positions[token] * half;
    const T* sine = static_cast<const T*>(call.sine) + call.positions[token] * half;
    for (int64_t head = 0; head < call.heads; ++head) {
      const T* x =
          static_cast<const T*>(call.x) + token * call.token_stride + head * call.head_stride;
      T* out = static_cast<T*>(call.out) + (token * call.heads + head) * call.head_dim;
      rotate_head(x, cosine, sine, out, half);
      memcpy(out + call.rotary_dim, x + call.rotary_dim,
             (call.head_dim - call.rotary_dim) * sizeof(T));
    }
  });
}

void rotate(ThreadPool& pool, const RotateCall& call) {
  if (call.type == kFloat32) {
    rotate_of<float>(pool, call);
  } else {
    rotate_of<BFloat16>(pool, call);
  }
}

struct Silu {
  static NOVACRON_INLINE Floats apply(Floats x) { return x / (1.0f + exponential(-x)); }
};

struct GeluTanh {  // (1 + tanh(u)) / 2 is the logistic function of 2u
  static NOVACRON_INLINE Floats apply(Floats x) {
    const Floats inner = 0.7978845608f * multiply_add(x * x * x, broadcast(0.044715f), x);
    return x / (1.0f + exponential(inner * -2.0f));
  }
};

struct Gelu {
  static NOVACRON_INLINE Floats apply(Floats x) {
    float lanes[kLanes];
    store(lanes, x);
    for (float& lane : lanes) lane = 0.5f * lane * (1.0f + erff(lane * 0.7071067812f));
    return load(lanes);
  }
};

template <class T, class Function>
void gated_of(ThreadPool& pool, const GatedCall& call) {
  parallel_rows(pool, call.rows, call.size, [&](int64_t row) {
    const T* gate = static_cast<const T*>(call.x) + row * call.x_stride;
    const T* up = gate + call.size;
    T* out = static_cast<T*>(call.out) + row * call.size;
    for_vectors(call.size, [&](int64_t i, int64_t count) {
      store_up_to(out + i, Function::apply(load_up_to(gate + i, count)) * load_up_to(up + i, count),
                  count);
    });
  });
}

template <class T>
void gated_by(ThreadPool& pool, const GatedCall& call) {
  switch (call.activation) {
    case kSilu: return gated_of<T, Silu>(pool, call);
    case kGeluTanh: return gated_of<T, GeluTanh>(pool, call);
    default: return gated_of<T, Gelu>(pool, call);
  }
}

void gated(ThreadPool& pool, const GatedCall& call) {
  if (call.type == kFloat32) {
    gated_by<float>(pool, call);
  } else {
    gated_by<BFloat16>(pool, call);
  }
}

template <class T, class Function>
void map_by(ThreadPool& pool, const MapCall& call, Function function) {
  parallel_rows(pool, call.rows, call.size, [&](int64_t row) {
    T* x = static_cast<T*>(call.x) + row * call.stride;
    for_vectors(call.size, [&](int64_t i, int64_t count) {
      store_up_to(x + i, function(load_up_to(x + i, count)), count);
    });
  });
}

template <class T>
void map_of(ThreadPool& pool, const MapCall& call) {
  const float operand = call.operand;
  if (call.function == kScale) {
    map_by<T>(pool, call, [operand](Floats x) { return x * operand; });
  } else {
    map_by<T>(pool, call, [operand](Floats x) { return hyperbolic_tangent(x / operand) * operand; });
  }
}

void map(ThreadPool& pool, const MapCall& call) {
  if (call.type == kFloat32) {
    map_of<float>(pool, call);
  } else {
    map_of<BFloat16>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
