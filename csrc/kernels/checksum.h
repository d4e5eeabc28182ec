// XXH3-128 checksums of KV blocks that are copied: of a head, filled up with zeros to one block of
// XXH3, and the block of KV behind it. What is read is summed and written at once, so memory is
// passed over once; a streamed copy goes past the caches, without being read there first.
//
// A stripe of 64 bytes goes into eight accumulators at once: each word is added to its neighbour's,
// and the product of its halves, once mixed with a part of the secret, to its own. After 16 stripes
// the accumulators are scrambled.
//
// Source: the XXH3 specification (Collet, xxhash_spec.md 0.8.2). SumWords are little-endian, as the
// machines are that this is built for.
#pragma once

#include <cstdint>
#include <cstring>

#include "../level.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kStripeBytes = 64, kStripes = 16;  // of a round
constexpr int64_t kRoundBytes = kStripeBytes * kStripes;
constexpr int kSecretBytes = 192, kSumLanes = 8;
constexpr int kSecretStep = 8;  // between stripes
constexpr int kScrambleSecret = kSecretBytes - 64, kLastSecret = kSecretBytes - 71;
constexpr int kLowSecret = 11, kHighSecret = kSecretBytes - 75;

constexpr uint64_t kPrime32_1 = 0x9E3779B1, kPrime32_2 = 0x85EBCA77, kPrime32_3 = 0xC2B2AE3D;
constexpr uint64_t kPrime64_1 = 0x9E3779B185EBCA87, kPrime64_2 = 0xC2B2AE3D27D4EB4F,
                   kPrime64_3 = 0x165667B19E3779F9, kPrime64_4 = 0x85EBCA77C2B2AE63,
                   kPrime64_5 = 0x27D4EB2F165667C5, kPrimeMix = 0x165667919E3779F9;

constexpr uint8_t kSecret[kSecretBytes] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

// As many words as a register holds.
#if defined(__AVX512F__)
constexpr int kSumWordsAtOnce = 8;
typedef uint64_t SumWords __attribute__((vector_size(64)));
inline SumWords product_of_halves(SumWords x) {
  return (SumWords)_mm512_mul_epu32((__m512i)x, (__m512i)(x >> 32));
}
inline SumWords neighbours(SumWords x) {
  return (SumWords)_mm512_shuffle_epi32((__m512i)x, _MM_PERM_BADC);
}
#elif defined(__AVX2__)
constexpr int kSumWordsAtOnce = 4;
typedef uint64_t SumWords __attribute__((vector_size(32)));
inline SumWords product_of_halves(SumWords x) {
  return (SumWords)_mm256_mul_epu32((__m256i)x, (__m256i)(x >> 32));
}
inline SumWords neighbours(SumWords x) { return (SumWords)_mm256_shuffle_epi32((__m256i)x, 0x4e); }
#elif defined(__SSE2__)
constexpr int kSumWordsAtOnce = 2;
typedef uint64_t SumWords __attribute__((vector_size(16)));
inline SumWords product_of_halves(SumWords x) {
  return (SumWords)_mm_mul_epu32((__m128i)x, (__m128i)(x >> 32));
}
inline SumWords neighbours(SumWords x) { return (SumWords)_mm_shuffle_epi32((__m128i)x, 0x4e); }
#else
constexpr int kSumWordsAtOnce = 2;
typedef uint64_t SumWords __attribute__((vector_size(16)));
inline SumWords product_of_halves(SumWords x) { return (x & 0xffffffff) * (x >> 32); }
inline SumWords neighbours(SumWords x) { return SumWords{x[1], x[0]}; }
#endif

constexpr int kSumParts = kSumLanes / kSumWordsAtOnce;  // of a stripe

inline SumWords words_at(const uint8_t* bytes, int part) {
  SumWords words;
  memcpy(&words, bytes + part * sizeof(SumWords), sizeof(SumWords));
  return words;
}

// What becomes of the words that are summed.
enum class Copying { kNone, kCached, kStreamed };

// Where a streamed copy may go.
inline bool may_stream(const uint8_t* target) {
  return reinterpret_cast<uintptr_t>(target) % sizeof(SumWords) == 0;
}

template <Copying kCopying>
inline void copy_words(SumWords words, uint8_t* target) {
  if constexpr (kCopying == Copying::kStreamed) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), (__m512i)words);
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), (__m256i)words);
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(target), (__m128i)words);
#else
    memcpy(target, &words, sizeof(words));
#endif
  } else if constexpr (kCopying == Copying::kCached) {
    memcpy(target, &words, sizeof(words));
  }
}

inline void end_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <Copying kCopying = Copying::kNone>
inline void accumulate(SumWords sums[kSumParts], const uint8_t* stripe, int secret_at,
                       uint8_t* target = nullptr) {
  for (int part = 0; part < kSumParts; ++part) {
    const SumWords words = words_at(stripe, part);
    copy_words<kCopying>(words, target + part * sizeof(SumWords));
    const SumWords mixed = words ^ words_at(kSecret + secret_at, part);
    sums[part] += neighbours(words) + product_of_halves(mixed);
  }
}

template <Copying kCopying = Copying::kNone>
inline void accumulate_stripes(SumWords sums[kSumParts], const uint8_t* bytes, int64_t count,
                               uint8_t* target = nullptr) {
  for (int stripe = 0; stripe < count; ++stripe) {
    const int64_t at = stripe * kStripeBytes;
    accumulate<kCopying>(sums, bytes + at, stripe * kSecretStep, target + at);
  }
}

template <Copying kCopying = Copying::kNone>
inline void accumulate_round(SumWords sums[kSumParts], const uint8_t* bytes,
                             uint8_t* target = nullptr) {
  accumulate_stripes<kCopying>(sums, bytes, kStripes, target);
  for (int part = 0; part < kSumParts; ++part) {
    SumWords x = sums[part] ^ (sums[part] >> 47);
    x ^= words_at(kSecret + kScrambleSecret, part);
    sums[part] = x * kPrime32_1;
  }
}

inline uint64_t fold_product(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t merge(const uint64_t sums[kSumLanes], uint64_t start, int secret_at) {
  uint64_t secret[kSumLanes], result = start;
  memcpy(secret, kSecret + secret_at, sizeof(secret));
  for (int i = 0; i < kSumLanes; i += 2) {
    result += fold_product(sums[i] ^ secret[i], sums[i + 1] ^ secret[i + 1]);
  }
  result ^= result >> 37;
  result *= kPrimeMix;
  return result ^ (result >> 32);
}

void write_big_endian(uint64_t value, uint8_t* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
}

// The sum of a head of at most kRoundBytes, filled up, and a block, which is not empty and is copied
// to `target` on the way.
template <Copying kCopying>
void sum_message(const uint8_t* head, int64_t head_bytes, const uint8_t* block, int64_t block_bytes,
                 uint8_t* target, uint8_t out[kSumBytes]) {
  static_assert(kSumBytes == 16, "two words");
  uint8_t padded[kRoundBytes] = {};
  memcpy(padded, head, head_bytes);
  alignas(64) uint64_t lanes[kSumLanes] = {kPrime32_3, kPrime64_1, kPrime64_2, kPrime64_3,
                                        kPrime64_4, kPrime32_2, kPrime64_5, kPrime32_1};
  SumWords sums[kSumParts];
  memcpy(sums, lanes, sizeof(lanes));
  accumulate_round(sums, padded);
  int64_t done = 0;  // the last round stays, also where it is a whole one
  for (; block_bytes - done > kRoundBytes; done += kRoundBytes) {
    accumulate_round<kCopying>(sums, block + done, target + done);
  }
  const int64_t stripes = (block_bytes - done - 1) / kStripeBytes;
  accumulate_stripes<kCopying>(sums, block + done, stripes, target + done);
  done += stripes * kStripeBytes;
  if constexpr (kCopying != Copying::kNone) memcpy(target + done, block + done, block_bytes - done);
  uint8_t last[kStripeBytes];  // of the message: where the block is short, of the head's zeros too
  const int64_t of_block = block_bytes < kStripeBytes ? block_bytes : kStripeBytes;
  memcpy(last, padded + kRoundBytes - (kStripeBytes - of_block), kStripeBytes - of_block);
  memcpy(last + kStripeBytes - of_block, block + block_bytes - of_block, of_block);
  accumulate(sums, last, kLastSecret);
  memcpy(lanes, sums, sizeof(lanes));
  const auto num_bytes = static_cast<uint64_t>(kRoundBytes + block_bytes);
  write_big_endian(merge(lanes, ~(num_bytes * kPrime64_2), kHighSecret), out);
  write_big_endian(merge(lanes, num_bytes * kPrime64_1, kLowSecret), out + 8);
}

void copy_blocks(const CopyCall& call) {
  for (int64_t i = 0; i < call.count; ++i) {
    const uint8_t* source = call.sources[i];
    uint8_t* target = call.targets[i];
    if (call.sums == nullptr) {
      if (target != source) memcpy(target, source, call.block_bytes);
      continue;
    }
    const auto sum = target == source ? sum_message<Copying::kNone>
                     : call.is_streamed && may_stream(target)
                         ? sum_message<Copying::kStreamed>
                         : sum_message<Copying::kCached>;
    sum(call.heads + i * call.head_bytes, call.head_bytes, source, call.block_bytes, target,
        call.sums + i * kSumBytes);
  }
  if (call.is_streamed) end_streams();
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
