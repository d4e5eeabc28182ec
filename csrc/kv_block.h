// How large a block of the KV cache is, and what is where in it: the same at every level.
#pragma once

#include "level.h"

namespace novacron {

constexpr int64_t kBlockAlignment = 64;
constexpr int64_t kDimsPerScale = 32;  // of 4 bits; else a token of a head has one, if any

constexpr int64_t kv_bits(int32_t format) {
  return format == kKVFloat32 ? 32 : format == kKVInt4 ? 4 : format < kKVInt8 ? 16 : 8;
}
// Dimensions are filled up to whole cells of 4 bytes, and to whole groups of a scale.
constexpr int64_t kv_padded_dims(int32_t format, int64_t dims) {
  const int64_t unit = format == kKVInt4 ? kDimsPerScale : 32 / kv_bits(format);
  return divide_up(dims, unit) * unit;
}
constexpr int64_t kv_group_size(int32_t format, int64_t dims) {
  return format == kKVInt4 ? kDimsPerScale : kv_padded_dims(format, dims);
}
constexpr int64_t kv_num_scales(int32_t format, int64_t dims) {
  return format < kKVInt8 ? 0 : kv_padded_dims(format, dims) / kv_group_size(format, dims);
}
// The data come first, then the scales, of two bytes each.
constexpr int64_t kv_scales_start(int32_t format, int64_t block_size, int64_t dims) {
  return block_size * kv_padded_dims(format, dims) * kv_bits(format) / 8;
}
constexpr int64_t kv_block_bytes(int32_t format, int64_t block_size, int64_t dims) {
  const int64_t scales = kv_num_scales(format, dims);
  const int64_t bytes = kv_scales_start(format, block_size, dims) + block_size * scales * 2;
  if (scales == 0) return bytes;
  return divide_up(bytes, kBlockAlignment) * kBlockAlignment;
}

}  // namespace novacron
