#include "generate/ngram.h"

#include <algorithm>

namespace quantloom::generate {

NgramIndex::NgramIndex(std::span<const std::int32_t> tokens) {
  tokens_.reserve(tokens.size());
  for (const std::int32_t token : tokens) append(token);
}

// FNV-1a over the n-gram that ends before `end`.
std::uint64_t NgramIndex::hash(std::size_t end, std::size_t length) const {
  std::uint64_t value = 14695981039346656037u;
  for (std::size_t i = end - length; i < end; ++i) {
    value = (value ^ static_cast<std::uint32_t>(tokens_[i])) * 1099511628211u;
  }
  return value;
}

void NgramIndex::append(std::int32_t token) {
  const std::size_t end = tokens_.size();
  for (std::size_t length = shortest; length <= longest and length <= end; ++length) {
    after_[length - shortest][hash(end, length)] = end;
  }
  tokens_.push_back(token);
}

std::vector<std::int32_t> NgramIndex::draft(std::size_t count) const {
  const std::size_t end = tokens_.size();
  for (std::size_t length = std::min(longest, end); length >= shortest; --length) {
    const auto& known = after_[length - shortest];
    const auto found = known.find(hash(end, length));
    if (found == known.end()) continue;
    const std::size_t from = found->second;
    // Two n-grams may share a hash.
    const auto* latest = tokens_.data() + end - length;
    if (not std::equal(latest, latest + length, tokens_.data() + from - length)) continue;
    std::vector<std::int32_t> guess(count);
    for (std::size_t i = 0; i < count; ++i) {
      guess[i] = from + i < end ? tokens_[from + i] : guess[from + i - end];
    }
    return guess;
  }
  return {};
}

}  // namespace quantloom::generate
