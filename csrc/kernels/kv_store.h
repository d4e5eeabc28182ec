// Brings the keys and values of a step into the cache, in its formats.
#pragma once

#include "kv_formats.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

inline void to_floats(int32_t type, const void* from, int64_t start, int64_t size, float* to) {
  for_vectors(size, [&](int64_t index, int64_t count) {
    const int64_t at = start + index;
    const Floats x = type == kFloat32
                         ? load_up_to(static_cast<const float*>(from) + at, count)
                         : load_up_to(static_cast<const BFloat16*>(from) + at, count);
    store_up_to(to + index, x, count);
  });
}

// Stores the keys, or the values, of tokens.
template <class Format>
class TokenStore {
  using Element = typename Format::Element;

 public:
  TokenStore(const AttentionCall& call, const KVCache& cache)
      : call_(call),
        cache_(cache),
        cells_(kv_padded_dims(Format::kFormat, call.head_dim) / Format::kElements),
        num_scales_(kv_num_scales(Format::kFormat, call.head_dim)),
        scales_start_(kv_scales_start(Format::kFormat, call.block_size, call.head_dim)),
        floats_(call.head_dim),
        codes_(cells_ * Format::kElements),
        scales_(num_scales_) {
    memset(static_cast<void*>(codes_.data()), 0, cells_ * Format::kElements * sizeof(Element));
  }

  void store_keys(int64_t token) const {
    const int64_t offset = call_.slots[token] % call_.block_size;
    for (int64_t head = 0; head < call_.num_kv_heads; ++head) {
      encode(call_.key, token * call_.key_token_stride + head * call_.key_head_stride);
      char* block = block_of(head, token);
      char* to = block + offset * 4;
      for (int64_t cell = 0; cell < cells_; ++cell, to += call_.block_size * 4) {
        const Element* codes = codes_.data() + cell * Format::kElements;
        if constexpr (Format::kIsInteger) {
          const uint32_t word = Format::cell_of(codes);
          memcpy(to, &word, 4);
        } else {
          memcpy(to, codes, 4);
        }
      }
      store_scales(block, offset);
    }
  }

  void store_values(int64_t token) const {
    const int64_t offset = call_.slots[token] % call_.block_size;
    for (int64_t head = 0; head < call_.num_kv_heads; ++head) {
      encode(call_.value, token * call_.value_token_stride + head * call_.value_head_stride);
      char* block = block_of(head, token);
      if constexpr (Format::kIsInteger) {
        const int64_t words = Format::words_of(call_.head_dim);
        char* to = block + offset / kTokensPerWord * words * 4 + Format::byte_of_token(offset);
        for (int64_t word = 0; word < words; ++word) {
          to[word * 4] = static_cast<char>(Format::byte_of(codes_.data(), word));
        }
      } else {
        const int64_t bytes = call_.head_dim * sizeof(Element);
        memcpy(block + offset * bytes, codes_.data(), bytes);
      }
      store_scales(block, offset);
    }
  }

 private:
  char* block_of(int64_t head, int64_t token) const {
    const int64_t block = call_.slots[token] / call_.block_size;
    return static_cast<char*>(cache_.blocks) + head * cache_.head_stride +
           block * cache_.block_stride;
  }
  void encode(const void* from, int64_t start) const {
    to_floats(call_.type, from, start, call_.head_dim, floats_.data());
    Format::encode(floats_.data(), call_.head_dim, codes_.data(), scales_.data());
  }
  void store_scales(char* block, int64_t offset) const {
    if constexpr (Format::kIsScaled) {
      char* to = block + scales_start_ + offset * 2;
      for (int64_t group = 0; group < num_scales_; ++group) {
        memcpy(to + group * call_.block_size * 2, scales_.data() + group, 2);
      }
    }
  }

  const AttentionCall& call_;
  const KVCache& cache_;
  const int64_t cells_, num_scales_, scales_start_;  // cells of a token's keys
  Scratch<float> floats_;
  Scratch<Element> codes_;
  Scratch<BFloat16> scales_;
};

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
