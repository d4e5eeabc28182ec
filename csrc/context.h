// What novacron_open makes: a level and its threads.
#pragma once

#include "level.h"
#include "thread_pool.h"

namespace novacron {

struct Context {
  Context(const Level& chosen, int num_threads) : level(chosen), pool(num_threads) {}
  const Level& level;
  ThreadPool pool;
};

}  // namespace novacron
