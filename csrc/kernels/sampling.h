// What sampling does with all logits of a row: the largest, and weights.
#pragma once

#include <cmath>

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kDoubleLanes = kLanes / 2;
typedef double Doubles __attribute__((vector_size(kDoubleLanes * 8)));
typedef int64_t Longs __attribute__((vector_size(kDoubleLanes * 8)));
typedef float HalfFloats __attribute__((vector_size(kDoubleLanes * 4)));

// The largest value and its first place; NaN if there is one among them.
Peak find_peak(const float* x, int64_t size) {
  Floats highest = broadcast(-INFINITY);
  Ints starts = {}, nan = {};  // of the vector that each lane's highest value is from
  for_vectors(size, [&](int64_t i, int64_t count) {
    Floats part = load_up_to(x + i, count);
    for (int64_t lane = count; lane < kLanes; ++lane) part[lane] = -INFINITY;
    const Ints higher = part > highest;
    highest = choose(higher, part, highest);
    starts = (higher & static_cast<int32_t>(i)) | (starts & ~higher);
    nan |= part != part;
  });
  Peak peak = {-INFINITY, 0};
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t place = starts[lane] + lane;
    if (nan[lane]) return {NAN, 0};
    if (highest[lane] > peak.value || (highest[lane] == peak.value && place < peak.place)) {
      peak = {highest[lane], place};
    }
  }
  return peak;
}

NOVACRON_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// e^x for -64 <= x <= 0, within a unit or two in the last place: the series of e^r, where x is
// n * ln 2 + r, times 2^n.
NOVACRON_INLINE Doubles exponential(Doubles x) {
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to a whole number
  constexpr double kInverseFactorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
      1.0 / 40320,      1.0 / 5040,      1.0 / 720,      1.0 / 120,     1.0 / 24,
      1.0 / 6,          1.0 / 2,         1.0,            1.0};
  const Doubles shifted = x * 1.4426950408889634 + kShift;
  const Doubles n = shifted - kShift;
  Doubles r = multiply_add(n, Doubles{} - 0x1.62e42fefa0000p-1, x);  // ln 2, its upper bits
  r = multiply_add(n, Doubles{} - 0x1.cf79abc9e3b39p-40, r);         // and the rest
  Doubles sum = Doubles{} + kInverseFactorials[0];
  for (int i = 1; i < 14; ++i) sum = multiply_add(sum, r, Doubles{} + kInverseFactorials[i]);
  const Longs exponent = (Longs)shifted - (Longs)(Doubles{} + kShift) + 1023;
  return sum * (Doubles)(exponent << 52);
}

// weights[i] = floor(2^44 * e^((x[i] - peak) / temperature)); `peak` is the largest of x.
void find_weights(const float* x, int64_t size, float peak, double temperature, int64_t* weights) {
  constexpr double kLargest = 17592186044416.0;  // 2^44
  constexpr double kNegligible = -64.0;          // e to that is far below 2^-44
  for (int64_t i = 0; i < size; i += kDoubleLanes) {
    const int64_t count = smaller(kDoubleLanes, size - i);
    HalfFloats part = HalfFloats{} + peak;
    memcpy(&part, x + i, count * sizeof(float));
    Doubles exponent =
        (__builtin_convertvector(part, Doubles) - static_cast<double>(peak)) / temperature;
    const Longs far = exponent < kNegligible;
    exponent = (Doubles)(((Longs)(Doubles{} + kNegligible) & far) | ((Longs)exponent & ~far));
    const Longs weight = __builtin_convertvector(exponential(exponent) * kLargest, Longs);
    memcpy(weights + i, &weight, count * sizeof(int64_t));
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
