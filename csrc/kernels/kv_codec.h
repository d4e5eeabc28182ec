// Blocks of the KV cache in fewer bytes, for tiers below the device, and back: what
// src/novacron/kv_tiers/codecs does in numpy, to the bit. On the thread of the caller.
//
// A run is the keys, or the values, of layers that lie alike. A scale belongs to `group` numbers: of
// keys all tokens of a dimension, of values neighbouring dimensions of a token. A code is the scales
// of all groups, then what is left of their numbers; of 4 bits, those of a group's first half lie in
// the low halves of its bytes.
#pragma once

#include <cfloat>

#include "kv_formats.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

struct CodeOfInt8 {
  static constexpr float kLimit = 127.0f;
  static constexpr bool kIsPacked = false;
  using Element = int8_t;
  static NOVACRON_INLINE Floats round(Floats scaled, Element* to, int64_t count) {
    const Ints whole = nearest(scaled);
    store_bytes(to, whole, count);
    return __builtin_convertvector(whole, Floats);
  }
  static NOVACRON_INLINE Floats read(const Element* from, int64_t count) {
    Bytes bytes = {};
    memcpy(&bytes, from, count);
    return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
  }
};

// As CodeOfInt8 until two are packed into a byte.
struct CodeOfInt4 : CodeOfInt8 {
  static constexpr float kLimit = 7.0f;
  static constexpr bool kIsPacked = true;
};

struct CodeOfFloat8 {
  static constexpr float kLimit = 448.0f;
  static constexpr bool kIsPacked = false;
  using Element = Float8;
  static NOVACRON_INLINE Floats round(Floats scaled, Element* to, int64_t count) {
    store_up_to(to, scaled, count);
    return load_up_to(to, count);
  }
  static NOVACRON_INLINE Floats read(const Element* from, int64_t count) {
    return load_up_to(from, count);
  }
};

inline float widened(BFloat16 scale) {
  const uint32_t bits = uint32_t{scale.bits} << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class Element, class Code>
class RunCodec {
  using Octet = typename Code::Element;
  static constexpr bool kIsPacked = Code::kIsPacked;

 public:
  explicit RunCodec(const KVCodecCall& call)
      : call_(call),
        numbers_(call.num_tokens * call.head_dim),
        groups_(numbers_ / call.group),
        group_bytes_(kIsPacked ? call.group / 2 : call.group),
        is_turned_(call.is_key != 0 && call.cell > 1),
        wide_(numbers_ + kLanes),
        turned_(is_turned_ ? numbers_ + kLanes : 0),
        room_(call.group + kLanes) {}

  void encode() const {
    for (int64_t part = 0; part < call_.num_parts; ++part) {
      Floats lost = {}, whole = {};
      bool is_finite = true;
      for (int64_t head = 0; head < call_.num_heads && is_finite; ++head) {
        const float* numbers = gather(part, head);
        for (int64_t group = 0; group < groups_ && is_finite; ++group) {
          is_finite = encode_group(numbers + group * call_.group, place(part, head, group), lost, whole);
        }
      }
      const float sum = sum_of_lanes(whole);
      call_.errors[part] = !is_finite ? INFINITY : sum > 0 ? sqrtf(sum_of_lanes(lost) / sum) : 0.0f;
    }
  }

  void decode() const {
    for (int64_t part = 0; part < call_.num_parts; ++part) {
      for (int64_t head = 0; head < call_.num_heads; ++head) {
        float* numbers = is_turned_ ? turned_.data() : wide_.data();
        for (int64_t group = 0; group < groups_; ++group) {
          decode_group(place(part, head, group), numbers + group * call_.group);
        }
        scatter(numbers, part, head);
      }
    }
  }

 private:
  Element* head_of(int64_t part, int64_t head) const {
    char* start = static_cast<char*>(call_.block) + part * call_.part_stride;
    return reinterpret_cast<Element*>(start) + head * numbers_;
  }
  int64_t place(int64_t part, int64_t head, int64_t group) const {
    return (part * call_.num_heads + head) * groups_ + group;
  }

  // The numbers of a head in floats, those of a group together.
  const float* gather(int64_t part, int64_t head) const {
    const Element* from = head_of(part, head);
    float* wide = wide_.data();
    for_vectors(numbers_, [&](int64_t index, int64_t count) {
      store_up_to(wide + index, load_up_to(from + index, count), count);
    });
    if (!is_turned_) return wide;
    turn(call_.num_tokens, call_.cell, wide, turned_.data());
    return turned_.data();
  }
  void scatter(const float* numbers, int64_t part, int64_t head) const {
    if (is_turned_) {
      turn(call_.cell, call_.num_tokens, numbers, wide_.data());
      numbers = wide_.data();
    }
    Element* to = head_of(part, head);
    for_vectors(numbers_, [&](int64_t index, int64_t count) {
      store_up_to(to + index, load_up_to(numbers + index, count), count);
    });
  }
  // [..][rows][columns] as [..][columns][rows].
  void turn(int64_t rows, int64_t columns, const float* from, float* to) const {
    const int64_t size = rows * columns;
    for (const float* end = from + numbers_; from < end; from += size, to += size) {
      if (columns == 2) {
        for (int64_t row = 0; row < rows; ++row) {
          to[row] = from[2 * row];
          to[rows + row] = from[2 * row + 1];
        }
      } else if (rows == 2) {
        for (int64_t column = 0; column < columns; ++column) {
          to[2 * column] = from[column];
          to[2 * column + 1] = from[columns + column];
        }
      } else {
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t column = 0; column < columns; ++column) {
            to[column * rows + row] = from[row * columns + column];
          }
        }
      }
    }
  }

  bool encode_group(const float* x, int64_t where, Floats& lost, Floats& whole) const {
    const float largest = largest_magnitude(x, call_.group);
    if (!(largest <= FLT_MAX)) return false;
    const BFloat16 scale = scale_for(largest, Code::kLimit);
    static_cast<BFloat16*>(call_.scales)[where] = scale;
    const float factor = widened(scale);
    const Floats by = broadcast(factor);
    const Floats inverse = broadcast(factor > 0x1p-100f ? 1.0f / factor : 0.0f);
    char* code = static_cast<char*>(call_.codes) + where * group_bytes_;
    Octet* to = kIsPacked ? room_.data() : reinterpret_cast<Octet*>(code);
    for_vectors(call_.group, [&](int64_t index, int64_t count) {
      const Floats number = load_up_to(x + index, count);
      Floats scaled = number * inverse;
      scaled = choose(scaled > Code::kLimit, broadcast(Code::kLimit), scaled);
      scaled = choose(scaled < -Code::kLimit, broadcast(-Code::kLimit), scaled);
      const Floats error = Code::round(scaled, to + index, count) * by - number;
      lost += error * error;
      whole += number * number;
    });
    if constexpr (kIsPacked) {
      for (int64_t byte = 0; byte < group_bytes_; ++byte) {
        code[byte] = static_cast<char>((to[byte] + 8) | (to[byte + group_bytes_] + 8) << 4);
      }
    }
    return true;
  }

  void decode_group(int64_t where, float* x) const {
    const Floats by = broadcast(widened(static_cast<const BFloat16*>(call_.scales)[where]));
    const char* code = static_cast<const char*>(call_.codes) + where * group_bytes_;
    const Octet* from = reinterpret_cast<const Octet*>(code);
    if constexpr (kIsPacked) {
      int8_t* room = room_.data();
      for (int64_t byte = 0; byte < group_bytes_; ++byte) {
        room[byte] = static_cast<int8_t>((code[byte] & 15) - 8);
        room[byte + group_bytes_] = static_cast<int8_t>((static_cast<uint8_t>(code[byte]) >> 4) - 8);
      }
      from = room;
    }
    for_vectors(call_.group, [&](int64_t index, int64_t count) {
      store_up_to(x + index, Code::read(from + index, count) * by, count);
    });
  }

  const KVCodecCall& call_;
  const int64_t numbers_, groups_, group_bytes_;  // of a head, of a head, of a code
  const bool is_turned_;
  Scratch<float> wide_, turned_;
  Scratch<Octet> room_;
};

template <class Element, class Code>
void run_codec(const KVCodecCall& call) {
  const RunCodec<Element, Code> codec(call);
  if (call.is_encoding != 0) {
    codec.encode();
  } else {
    codec.decode();
  }
}

template <class Element>
void run_codec_of(const KVCodecCall& call) {
  if (call.code == kKVInt8) return run_codec<Element, CodeOfInt8>(call);
  if (call.code == kKVInt4) return run_codec<Element, CodeOfInt4>(call);
  return run_codec<Element, CodeOfFloat8>(call);
}

inline void code_kv(const KVCodecCall& call) {
  if (call.type == kKVFloat32) return run_codec_of<float>(call);
  if (call.type == kKVBFloat16) return run_codec_of<BFloat16>(call);
  return run_codec_of<Float16>(call);
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
