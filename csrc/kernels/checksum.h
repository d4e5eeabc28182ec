// BLAKE3 checksums of KV blocks that are copied: the hash of a head and a block, cut to 16 bytes.
//
// A message is a tree: chunks of 1,024 bytes, and parents of two nodes. As many nodes of a level as
// there are lanes are hashed at once, word by word of their 64-byte messages.
//
// Source: the BLAKE3 specification (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020).
#pragma once

#include <cstdint>
#include <cstring>

#include "../level.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kNodes = 16;  // hashed at once
#elif defined(__AVX2__)
constexpr int kNodes = 8;
#else
constexpr int kNodes = 4;
#endif
constexpr int kCompressions = 16;  // of a chunk
constexpr int64_t kMessageBytes = 64;
constexpr int64_t kChunkBytes = kCompressions * kMessageBytes;
constexpr int kWords = 16, kHashWords = 8, kRounds = 7;
constexpr uint32_t kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8;

constexpr uint32_t kInitial[kHashWords] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr int kOrder[kWords] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};

typedef uint32_t NodeWords __attribute__((vector_size(kNodes * 4)));  // the same word of all nodes

struct Hash {
  uint32_t words[kHashWords];
};

inline NodeWords each(uint32_t value) { return value - NodeWords{}; }

template <int bits>
inline NodeWords rotate_right(NodeWords x) {
  return (x >> bits) | (x << (32 - bits));
}

inline void mix(NodeWords& a, NodeWords& b, NodeWords& c, NodeWords& d, NodeWords x, NodeWords y) {
  a += b + x;
  d = rotate_right<16>(d ^ a);
  c += d;
  b = rotate_right<12>(b ^ c);
  a += b + y;
  d = rotate_right<8>(d ^ a);
  c += d;
  b = rotate_right<7>(b ^ c);
}

template <int... lanes>
struct Lanes {};
#if defined(__AVX512F__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX2__)
using AllLanes = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using AllLanes = Lanes<0, 1, 2, 3>;
#endif

#if defined(__clang__)
#define NOVACRON_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define NOVACRON_PICK(a, b, ...) __builtin_shuffle(a, b, NodeWords{__VA_ARGS__})
#endif

// Of two rows of a matrix, `distance` apart: the first and the second once the blocks of that size
// beside its diagonal are exchanged.
template <int distance, int... lane>
inline NodeWords first_row(NodeWords a, NodeWords b, Lanes<lane...>) {
  return NOVACRON_PICK(a, b, ((lane & distance) == 0 ? lane : kNodes + lane - distance)...);
}
template <int distance, int... lane>
inline NodeWords second_row(NodeWords a, NodeWords b, Lanes<lane...>) {
  return NOVACRON_PICK(a, b, ((lane & distance) == 0 ? lane + distance : kNodes + lane)...);
}

#undef NOVACRON_PICK

template <int distance>
inline void exchange(NodeWords rows[kNodes]) {
  for (int row = 0; row < kNodes; ++row) {
    if ((row & distance) != 0) continue;
    const NodeWords a = rows[row], b = rows[row + distance];
    rows[row] = first_row<distance>(a, b, AllLanes{});
    rows[row + distance] = second_row<distance>(a, b, AllLanes{});
  }
}

// rows[node] holds words of a node; then rows[word] that word of all nodes.
inline void transpose(NodeWords rows[kNodes]) {
  if constexpr (kNodes > 8) exchange<8>(rows);
  if constexpr (kNodes > 4) exchange<4>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
}

// One compression of each node: `hash` becomes its next chaining value.
inline void compress(NodeWords hash[kHashWords], const NodeWords message[kWords], NodeWords counter,
                     uint32_t num_bytes, uint32_t flags) {
  NodeWords m[kWords], v[kWords];
  for (int word = 0; word < kWords; ++word) m[word] = message[word];
  for (int word = 0; word < kHashWords; ++word) v[word] = hash[word];
  for (int word = 0; word < 4; ++word) v[8 + word] = each(kInitial[word]);
  v[12] = counter;  // of fewer than 2^32 chunks
  v[13] = each(0);
  v[14] = each(num_bytes);
  v[15] = each(flags);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < 4; ++i) mix(v[i], v[4 + i], v[8 + i], v[12 + i], m[2 * i], m[2 * i + 1]);
    for (int i = 0; i < 4; ++i) {
      mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], m[8 + 2 * i],
          m[9 + 2 * i]);
    }
    NodeWords next[kWords];
    for (int word = 0; word < kWords; ++word) next[word] = m[kOrder[word]];
    for (int word = 0; word < kWords; ++word) m[word] = next[word];
  }
  for (int word = 0; word < kHashWords; ++word) hash[word] = v[word] ^ v[8 + word];
}

// Hashes of up to kNodes nodes of `num_compressions` whole messages each.
void hash_nodes(const uint8_t* const* nodes, int count, int num_compressions, uint32_t first_chunk,
                uint32_t flags, uint32_t start, uint32_t end, Hash* out) {
  NodeWords hash[kHashWords], counter = each(first_chunk);
  for (int word = 0; word < kHashWords; ++word) hash[word] = each(kInitial[word]);
  if ((flags & kParent) == 0) {
    for (int node = 0; node < kNodes; ++node) counter[node] += static_cast<uint32_t>(node);
  }
  for (int i = 0; i < num_compressions; ++i) {
    NodeWords message[kWords];
    for (int word = 0; word < kWords; word += kNodes) {
      for (int node = 0; node < kNodes; ++node) {
        const uint8_t* start = nodes[node < count ? node : 0] + i * kMessageBytes + 4 * word;
        memcpy(&message[word + node], start, sizeof(NodeWords));
      }
      transpose(message + word);
    }
    const uint32_t ends = (i == 0 ? start : 0) | (i == num_compressions - 1 ? end : 0);
    compress(hash, message, counter, kMessageBytes, flags | ends);
  }
  for (int word = 0; word < kHashWords; ++word) {
    for (int node = 0; node < count; ++node) out[node].words[word] = hash[word][node];
  }
}

// The hash of a chunk that need not be full.
Hash hash_last_chunk(const uint8_t* bytes, int64_t num_bytes, uint32_t chunk, uint32_t root) {
  NodeWords hash[kHashWords];
  for (int word = 0; word < kHashWords; ++word) hash[word] = each(kInitial[word]);
  int64_t done = 0;
  do {
    const int64_t left = num_bytes - done;
    const int64_t size = left < kMessageBytes ? left : kMessageBytes;
    uint32_t words[kWords] = {};
    memcpy(words, bytes + done, size);
    NodeWords message[kWords];
    for (int word = 0; word < kWords; ++word) message[word] = each(words[word]);
    const uint32_t flags =
        (done == 0 ? kChunkStart : 0) | (left <= kMessageBytes ? kChunkEnd | root : 0);
    compress(hash, message, each(chunk), static_cast<uint32_t>(size), flags);
    done += size;
  } while (done < num_bytes);
  Hash result;
  for (int word = 0; word < kHashWords; ++word) result.words[word] = hash[word][0];
  return result;
}

// Pairs of neighbours become parents, level by level; one without a neighbour goes up as it is.
Hash fold(Hash* hashes, int64_t count) {
  while (count > 1) {
    const int64_t num_parents = count / 2;
    const uint32_t flags = kParent | (count == 2 ? kRoot : 0);
    for (int64_t first = 0; first < num_parents; first += kNodes) {
      const int64_t left = num_parents - first;
      const int size = static_cast<int>(left < kNodes ? left : kNodes);
      const uint8_t* nodes[kNodes];
      for (int node = 0; node < size; ++node) {
        nodes[node] = reinterpret_cast<const uint8_t*>(&hashes[2 * (first + node)]);
      }
      Hash parents[kNodes];
      hash_nodes(nodes, size, 1, 0, flags, 0, 0, parents);
      memcpy(&hashes[first], parents, size * sizeof(Hash));
    }
    if (count % 2 == 1) hashes[num_parents] = hashes[count - 1];
    count = divide_up(count, 2);
  }
  return hashes[0];
}

// `hashes` has room for a hash of each chunk of the message. The first chunk is put together, because
// the head does not lie in front of the block.
Hash hash_message(const uint8_t* head, int64_t head_bytes, const uint8_t* block, int64_t block_bytes,
                  Hash* hashes) {
  const int64_t num_bytes = head_bytes + block_bytes;
  const int64_t num_chunks = num_bytes == 0 ? 1 : divide_up(num_bytes, kChunkBytes);
  uint8_t first_chunk[kChunkBytes];
  const int64_t beside_head =
      block_bytes < kChunkBytes - head_bytes ? block_bytes : kChunkBytes - head_bytes;
  memcpy(first_chunk, head, head_bytes);
  memcpy(first_chunk + head_bytes, block, beside_head);
  const auto chunk_at = [&](int64_t chunk) {
    return chunk == 0 ? first_chunk : block + chunk * kChunkBytes - head_bytes;
  };
  const int64_t num_full = num_chunks - 1;
  for (int64_t first = 0; first < num_full; first += kNodes) {
    const int64_t left = num_full - first;
    const int size = static_cast<int>(left < kNodes ? left : kNodes);
    const uint8_t* nodes[kNodes];
    for (int node = 0; node < size; ++node) nodes[node] = chunk_at(first + node);
    hash_nodes(nodes, size, kCompressions, static_cast<uint32_t>(first), 0, kChunkStart, kChunkEnd,
               &hashes[first]);
  }
  hashes[num_full] =
      hash_last_chunk(chunk_at(num_full), num_bytes - num_full * kChunkBytes,
                      static_cast<uint32_t>(num_full), num_chunks == 1 ? kRoot : 0);
  return fold(hashes, num_chunks);
}

// One block after the other, so that it is hashed while the caches have it.
void copy_blocks(const CopyCall& call) {
  const int64_t num_bytes = call.head_bytes + call.block_bytes;
  Hash* hashes = nullptr;
  if (call.sums != nullptr) {
    hashes = static_cast<Hash*>(malloc((num_bytes / kChunkBytes + 1) * sizeof(Hash)));
  }
  for (int64_t i = 0; i < call.count; ++i) {
    uint8_t* target = call.targets[i];
    if (target != call.sources[i]) memcpy(target, call.sources[i], call.block_bytes);
    if (call.sums == nullptr) continue;
    const Hash hash = hash_message(call.heads + i * call.head_bytes, call.head_bytes, target,
                                   call.block_bytes, hashes);
    memcpy(call.sums + i * kSumBytes, hash.words, kSumBytes);
  }
  free(hashes);
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
