#include "packing.h"

#include <cstring>

#include "level.h"
#include "scalar.h"

namespace novacron {
namespace {

bool is_grouped(int32_t weight_type) {
  return weight_type == kInt8 || weight_type == kInt4 || weight_type == kFloat8;
}

// Of e4m3, which has no infinities; its NaN does not occur in packed weights.
float widened_float8(uint8_t code) {
  const uint32_t magnitude = code & 0x7f;
  const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f
                                    : float_of((magnitude << 20) + (120u << 23));
  return code & 0x80 ? -value : value;
}

// Where the parts of packed weights lie, in bytes.
struct Layout {
  Layout(int32_t weight_type, int64_t group_size, int64_t inputs)
      : group(group_size),
        groups(is_grouped(weight_type) ? divide_up(inputs, group_size) : 1),
        is_int4(weight_type == kInt4),
        is_float8(weight_type == kFloat8),
        scale_bytes(is_float8 ? 4 : 2),
        elements_per_cell(is_grouped(weight_type) ? 4 : weight_type == kBFloat16 ? 2 : 1),
        group_bytes(is_grouped(weight_type)
                        ? kPanel * (scale_bytes + (is_int4 ? group / 2 : group))
                        : divide_up(inputs, elements_per_cell) * kPanel * kCellBytes),
        panel_bytes(groups * group_bytes) {}

  int64_t panel(int64_t output) const { return output / kPanel * panel_bytes; }
  int64_t scale(int64_t output, int64_t index) const {
    return panel(output) + index * group_bytes + output % kPanel * scale_bytes;
  }
  // The first cell of an output in a group. Two cells of int4 share a place.
  int64_t cells(int64_t output, int64_t index) const {
    return panel(output) + index * group_bytes + kPanel * scale_bytes +
           output % kPanel * kCellBytes;
  }

  const int64_t group, groups;
  const bool is_int4, is_float8;
  const int64_t scale_bytes;
  const int64_t elements_per_cell, group_bytes, panel_bytes;
};

// One group of one output: its weights, rounded, as values plus offset.
struct RoundedGroup {
  uint16_t scale;
  uint8_t values[kLargestGroup];
};

// The nearest whole number in [low, high].
uint8_t rounded(float value, float low, float high, int offset) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  value = value < low ? low : value > high ? high : value;
  return static_cast<uint8_t>(static_cast<int>((value + kShift) - kShift) + offset);
}

template <class Element>
void round_group(const Element* from, int64_t count, const Layout& layout, RoundedGroup* to) {
  float values[kLargestGroup] = {};
  for (int64_t i = 0; i < count; ++i) values[i] = widened(from + i);
  uint32_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t size = bits_of(values[i]) & 0x7fffffff;
    most = size > most ? size : most;
  }
  float largest = float_of(most);
  if (layout.is_int4) {
    for (int64_t i = count; i-- > 0;) {
      if ((bits_of(values[i]) & 0x7fffffff) == most) largest = values[i];  // the first of equals
    }
  }
  const float exact = layout.is_int4 ? largest / -8.0f : largest / 127.0f;
  to->scale = static_cast<uint16_t>((bits_of(exact) + 0xffff) >> 16);
  const float scale = float_of(uint32_t{to->scale} << 16);
  const float low = layout.is_int4 ? -8.0f : -127.0f, high = layout.is_int4 ? 7.0f : 127.0f;
  const int offset = layout.is_int4 ? 8 : 128;
  for (int64_t i = 0; i < layout.group; ++i) {
    to->values[i] = rounded(most == 0 ? 0.0f : values[i] / scale, low, high, offset);
  }
}

template <class Element>
void pack_rounded_output(const PackCall& call, const Layout& layout, int64_t output) {
  const Element* weights = static_cast<const Element*>(call.weights) + output * call.stride;
  char* packed = static_cast<char*>(call.packed);
  RoundedGroup rounded;
  for (int64_t group = 0; group < layout.groups; ++group) {
    const int64_t first = group * layout.group, left = call.inputs - first;
    const int64_t count = output < call.outputs ? (left < layout.group ? left : layout.group) : 0;
    round_group(weights + first, count, layout, &rounded);
    memcpy(packed + layout.scale(output, group), &rounded.scale, sizeof rounded.scale);
    char* to = packed + layout.cells(output, group);
    const uint8_t* value = rounded.values;
    if (layout.is_int4) {
      for (int64_t i = 0; i < layout.group; i += 8, to += kPanel * kCellBytes, value += 8) {
        for (int byte = 0; byte < 4; ++byte) {
          to[byte] = static_cast<char>(value[byte] | value[byte + 4] << 4);
        }
      }
    } else {
      for (int64_t i = 0; i < layout.group; i += 4, to += kPanel * kCellBytes, value += 4) {
        memcpy(to, value, kCellBytes);
      }
    }
  }
}

void pack_copied_output(const PackCall& call, const Layout& layout, int64_t output) {
  const int64_t element_bytes = kCellBytes / layout.elements_per_cell;
  const int64_t row_bytes = call.inputs * element_bytes;
  const char* from = static_cast<const char*>(call.weights) + output * call.stride * element_bytes;
  char* to = static_cast<char*>(call.packed) + layout.panel(output) + output % kPanel * kCellBytes;
  for (int64_t byte = 0; byte < row_bytes; byte += kCellBytes, to += kPanel * kCellBytes) {
    const int64_t left = row_bytes - byte;
    uint32_t cell = 0;
    if (output < call.outputs) memcpy(&cell, from + byte, left < kCellBytes ? left : kCellBytes);
    memcpy(to, &cell, kCellBytes);
  }
}

void pack_panels(void* argument, int64_t first, int64_t last) {
  const PackCall& call = *static_cast<const PackCall*>(argument);
  const Layout layout(call.weight_type, call.group, call.inputs);
  for (int64_t output = first * kPanel; output < last * kPanel; ++output) {
    if (!is_grouped(call.weight_type)) {
      pack_copied_output(call, layout, output);
    } else if (call.type == kBFloat16) {
      pack_rounded_output<uint16_t>(call, layout, output);
    } else {
      pack_rounded_output<float>(call, layout, output);
    }
  }
}

template <class Out>
void look_up_rounded(const LookupCall& call, const Layout& layout, int64_t output, Out* to) {
  const char* packed = static_cast<const char*>(call.table);
  for (int64_t i = 0; i < call.size; ++i) {
    const int64_t group = i / layout.group, at = i % layout.group;
    uint16_t scale;
    memcpy(&scale, packed + layout.scale(output, group), sizeof scale);
    const char* cells = packed + layout.cells(output, group);
    int value;
    if (layout.is_int4) {
      const uint8_t both = cells[at / 8 * kPanel * kCellBytes + at % 4];
      value = (at % 8 < 4 ? both & 15 : both >> 4) - 8;
    } else {
      value = static_cast<uint8_t>(cells[at / 4 * kPanel * kCellBytes + at % 4]) - 128;
    }
    narrow(static_cast<float>(value) * widened(&scale), to + i);
  }
}

template <class Out>
void look_up_float8(const LookupCall& call, const Layout& layout, int64_t output, Out* to) {
  constexpr int kPlace[] = {0, 2, 1, 3};
  const char* packed = static_cast<const char*>(call.table);
  for (int64_t i = 0; i < call.size; ++i) {
    const int64_t group = i / layout.group, at = i % layout.group;
    float scale;
    memcpy(&scale, packed + layout.scale(output, group), sizeof scale);
    const char* cells = packed + layout.cells(output, group);
    const char code = cells[at / 4 * kPanel * kCellBytes + kPlace[at % 4]];
    narrow(widened_float8(static_cast<uint8_t>(code)) * scale, to + i);
  }
}

template <class Out>
void look_up_grouped(const LookupCall& call, const Layout& layout, int64_t output, Out* to) {
  if (layout.is_float8) {
    look_up_float8(call, layout, output, to);
  } else {
    look_up_rounded(call, layout, output, to);
  }
}

void look_up_copied(const LookupCall& call, const Layout& layout, int64_t output, char* to) {
  const int64_t row_bytes = call.size * kCellBytes / layout.elements_per_cell;
  const char* from =
      static_cast<const char*>(call.table) + layout.panel(output) + output % kPanel * kCellBytes;
  for (int64_t byte = 0; byte < row_bytes; byte += kCellBytes, from += kPanel * kCellBytes) {
    const int64_t left = row_bytes - byte;
    memcpy(to + byte, from, left < kCellBytes ? left : kCellBytes);
  }
}

void look_up_rows(void* argument, int64_t first, int64_t last) {
  const LookupCall& call = *static_cast<const LookupCall*>(argument);
  const Layout layout(call.weight_type, call.group, call.size);
  const int64_t row_bytes = call.size * (call.type == kBFloat16 ? 2 : 4);
  for (int64_t row = first; row < last; ++row) {
    char* to = static_cast<char*>(call.out) + row * row_bytes;
    const int64_t output = call.ids[row] - call.first_id;
    if (output < 0 || output >= call.num_ids) {
      continue;
    } else if (!call.is_packed) {
      memcpy(to, static_cast<const char*>(call.table) + output * row_bytes, row_bytes);
    } else if (!is_grouped(call.weight_type)) {
      look_up_copied(call, layout, output, to);
    } else if (call.type == kBFloat16) {
      look_up_grouped(call, layout, output, reinterpret_cast<uint16_t*>(to));
    } else {
      look_up_grouped(call, layout, output, reinterpret_cast<float*>(to));
    }
  }
}

}  // namespace

int64_t packed_bytes(int32_t weight_type, int64_t group, int64_t outputs, int64_t inputs) {
  return divide_up(outputs, kPanel) * Layout(weight_type, group, inputs).panel_bytes;
}

void pack(ThreadPool& pool, const PackCall& call) {
  pool.run(divide_up(call.outputs, kPanel), 1, pack_panels, const_cast<PackCall*>(&call));
}

void lookup(ThreadPool& pool, const LookupCall& call) {
  constexpr int64_t kElementsWorthClaiming = 16 * 1024;
  pool.run(call.rows, divide_up(kElementsWorthClaiming, call.size), look_up_rows,
           const_cast<LookupCall*>(&call));
}

}  // namespace novacron
