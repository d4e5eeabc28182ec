// Single values of the element types, for code that is not worth vectors.
#pragma once

#include <cstdint>
#include <cstring>

namespace novacron {

inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline float widened(const float* from) { return *from; }
inline float widened(const uint16_t* bfloat16) { return float_of(uint32_t{*bfloat16} << 16); }

// To nearest, ties to even; NaN stays NaN.
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, uint16_t* bfloat16) {
  const uint32_t bits = bits_of(value);
  *bfloat16 = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace novacron
