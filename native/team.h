// Threads that compute one thing together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace qwen_aio {

// A number that threads wait for: at first in a loop, for what comes within microseconds, then asleep.
class Signal {
 public:
  std::uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void raise();                                            // value + 1
  void wait_while(std::uint32_t value, int microseconds);  // `microseconds`: before it sleeps

 private:
  std::atomic<std::uint32_t> value_{0};
  std::atomic<int> num_asleep_{0};
  std::mutex mutex_;
  std::condition_variable woken_;
};

// `size` threads, of which the caller of run() is the first. One run at a time.
class Team {
 public:
  explicit Team(int size);  // throws std::bad_alloc, std::system_error
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }
  void run(const std::function<void(int thread)>& work);  // on all threads; returns when all are done
  void barrier();                                         // inside of run(): wait for all

 private:
  void serve(int thread);
  void end();
  void leave_the_callers_core();  // before a run: no helper is woken where the caller computes

  const int size_;
  const std::function<void(int)>* work_ = nullptr;
  bool is_ending_ = false;
  int callers_core_ = -1;  // which helpers keep off
  alignas(64) Signal started_;
  alignas(64) Signal arrived_;
  alignas(64) std::atomic<int> num_arrived_{0};
  std::vector<std::thread> helpers_;
};

// Numbered tasks for all threads of a team: each takes its own share first, then what others have left.
class Tasks {
 public:
  explicit Tasks(int num_threads) : shares_(num_threads) {}
  void reset(int count);  // by one thread, while no other takes any
  int next(int thread);   // the number of a task; -1 after the last one

 private:
  struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
  };
  std::vector<Share> shares_;
};

}  // namespace qwen_aio
