// Transposition, for CPU kernels that walk across the order of memory.
#pragma once

#include "cpu.h"

#include <algorithm>

namespace sdk {

// Writes `from` (rows, columns) as `to` (columns, rows); the pitches say how far apart their rows lie. This goes tile
// by tile: as their size is constant, they are turned in registers.
template <typename From, typename To>
SDK_SIMD void transpose(
    const From* __restrict from,
    int64_t from_pitch,
    int64_t rows,
    int64_t columns,
    To* __restrict to,
    int64_t to_pitch) {
  constexpr int64_t TILE = 16;
  To tile[TILE][TILE], turned[TILE][TILE];
  for (int64_t column = 0; column < columns; column += TILE) {
    for (int64_t row = 0; row < rows; row += TILE) {
      if (row + TILE > rows || column + TILE > columns) {
        for (int64_t j = column; j < std::min(columns, column + TILE); ++j) {
          for (int64_t i = row; i < std::min(rows, row + TILE); ++i) {
            to[j * to_pitch + i] = static_cast<To>(from[i * from_pitch + j]);
          }
        }
        continue;
      }
      for (int64_t i = 0; i < TILE; ++i) {
        for (int64_t j = 0; j < TILE; ++j) {
          tile[i][j] = static_cast<To>(from[(row + i) * from_pitch + column + j]);
        }
      }
      for (int64_t j = 0; j < TILE; ++j) {
        for (int64_t i = 0; i < TILE; ++i) {
          turned[j][i] = tile[i][j];
        }
      }
      for (int64_t j = 0; j < TILE; ++j) {
        std::copy_n(turned[j], TILE, to + (column + j) * to_pitch + row);
      }
    }
  }
}

}  // namespace sdk
