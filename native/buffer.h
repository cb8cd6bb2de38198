// Memory that grows, begins at a cache line, and starts out with no particular content.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>

namespace qwen_aio {

template <class Number>
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Number* get() const { return numbers_; }

  // At least `count` numbers; what was in it is lost. Throws std::bad_alloc.
  void reserve(std::size_t count) {
    static_assert(std::is_trivial_v<Number>);
    if (count <= capacity_) return;
    release();
    numbers_ = static_cast<Number*>(::operator new(count * sizeof(Number), CACHE_LINE));
    capacity_ = count;
  }

 private:
  static constexpr std::align_val_t CACHE_LINE{64};

  void release() {
    ::operator delete(numbers_, CACHE_LINE);
    numbers_ = nullptr;
    capacity_ = 0;
  }

  Number* numbers_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace qwen_aio
