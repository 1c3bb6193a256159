// Where pointers stand in types.
#pragma once

#include "types.h"
#include "llvm/IR/Constants.h"
#include "llvm/IR/DataLayout.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Operator.h"
#include <map>

namespace chestnut {

inline bool isUnion(const llvm::Type *type) {
  auto *record = llvm::dyn_cast<llvm::StructType>(type);
  return record && record->hasName() && record->getName().startswith("union.");
}

// A type of its own for what stands at a place of a struct whose type is not complete yet.
inline std::string placeName(const llvm::StructType *record, uint64_t at) {
  return "member " + nameOf(record) + " " + std::to_string(at);
}

struct Member {
  const llvm::Type *type;
  // What stands for its type if that is not complete.
  std::string place;
};

// By offset, the pointers that a value of a type holds.
using Members = std::map<uint64_t, Member>;

class MemberFinder {
 public:
  explicit MemberFinder(const llvm::DataLayout &layout) : layout(layout) {}

  const Members &of(const llvm::Type *type) {
    auto [found, isNew] = known.try_emplace(type);
    if (isNew) find(const_cast<llvm::Type *>(type), 0, found->second);
    return found->second;
  }

  // The place of a struct that a pointer to a member, or what was read by it, is of; empty if that is not known.
  std::string placeOf(const llvm::Value &value) const {
    using namespace llvm;
    auto *load = dyn_cast<LoadInst>(&value);
    auto *member = dyn_cast<GEPOperator>(load ? load->getPointerOperand() : &value);
    auto *record = member ? dyn_cast<StructType>(member->getSourceElementType()) : nullptr;
    auto *index = record && member->getNumOperands() == 3 ? dyn_cast<ConstantInt>(member->getOperand(2)) : nullptr;
    if (!index || !record->hasName()) return {};
    return placeName(record, layout.getStructLayout(record)->getElementOffset(unsigned(index->getZExtValue())));
  }

  // Whether a type has something at an offset.
  bool covers(const llvm::Type *type, uint64_t at) const {
    return !llvm::isa<llvm::FunctionType>(type) && type->isSized() && !type->isIntegerTy(8) &&
           at < layout.getTypeAllocSize(const_cast<llvm::Type *>(type));
  }

 private:
  // Of an array no more elements count.
  static constexpr uint64_t Most = 256;

  const llvm::DataLayout &layout;
  std::map<const llvm::Type *, Members> known;

  void find(llvm::Type *type, uint64_t at, Members &found) const {
    using namespace llvm;
    if (isa<PointerType>(type)) {
      found.emplace(at, Member{type, {}});
    } else if (auto *record = dyn_cast<StructType>(type); record && record->isSized()) {
      const auto *places = layout.getStructLayout(record);
      for (unsigned index = 0; index < record->getNumElements(); ++index) {
        uint64_t offset = places->getElementOffset(index);
        find(record->getElementType(index), at + offset, found);
        auto *pointer = dyn_cast<PointerType>(record->getElementType(index));
        if (record->hasName() && pointer && isPlaceholder(pointer->getNonOpaquePointerElementType()))
          found[at + offset].place = placeName(record, offset);
      }
    } else if (auto *array = dyn_cast<ArrayType>(type); array && array->isSized()) {
      uint64_t size = layout.getTypeAllocSize(array->getElementType());
      for (uint64_t index = 0; index < std::min(array->getNumElements(), Most); ++index)
        find(array->getElementType(), at + index * size, found);
    }
  }
};

}  // namespace chestnut
