// Weights in the form that kernels/ multiplies with. The same on all levels.
//
// Outputs are padded to whole panels of 64, and a panel lies in one piece:
//   float32, bfloat16   [inputs / cell][64][cell], a cell being 4 bytes
//   int8                for each group: 64 scales, then [inputs / 4][64][4] bytes of value + 128
//   int4                for each group: 64 scales, then [inputs / 8][64][4] bytes, in whose lower
//                       halves are the first four inputs and in whose upper halves the last four,
//                       as value + 8
//   float8              for each group of 128: 64 scales, then [inputs / 4][64][4] bytes, the inputs
//                       of a cell in the order 0, 2, 1, 3
// What lies past the last input or output counts as zero. Scales of whole numbers are bfloat16,
// rounded away from zero, so that the values fit: 127 stands for the largest of a group in int8, and -8
// in int4, whose scale has the sign for that. A value is the nearest whole number to weight / scale,
// ties to even. Scales of float8 are float32, as files may have them.
#pragma once

#include "api.h"
#include "thread_pool.h"

namespace novacron {

int64_t packed_bytes(int32_t weight_type, int64_t group, int64_t outputs, int64_t inputs);
void pack(ThreadPool& pool, const PackCall& call);
void lookup(ThreadPool& pool, const LookupCall& call);

}  // namespace novacron
