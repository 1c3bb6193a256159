// The C-level identity of function types, from the typed pointers of LLVM 14.
//
// `i32 (_IO_FILE*, i8*)`: structs by their tag, so that pointers to different ones differ; without `struct.`, `union.`
// and `class.`, which depend on which declaration came first, without the scopes of C++, which C does not have, and
// without the numbers that LLVM adds to names that it has seen (two structs of one name count as one). A pointer to a
// function inside a type is `fn*` whatever its type: clang writes `{}*` where that is not complete yet
// (`CodeGenTypes::ConvertFunctionTypeInternal`). One to an array is one to its elements: a length that is not written
// down is compatible with all (C17 6.7.6.2).
#pragma once

#include "llvm/IR/DerivedTypes.h"
#include <string>

namespace chestnut {

// Clang's placeholder for a function type that is not complete yet.
inline bool isPlaceholder(const llvm::Type *type) {
  auto *pointee = llvm::dyn_cast<llvm::StructType>(type);
  return pointee && pointee->isLiteral() && pointee->getNumElements() == 0;
}

inline std::string nameOf(const llvm::StructType *type) {
  llvm::StringRef name = type->getName();
  for (llvm::StringRef prefix : {"struct.", "union.", "class."})
    if (name.consume_front(prefix)) break;
  while (true) {
    auto [front, digits] = name.rsplit('.');
    if (digits.empty() || front.empty() || digits.find_first_not_of("0123456789") != llvm::StringRef::npos) break;
    name = front;
  }
  name.consume_back(".base");
  size_t scope = name.rfind("::");
  return (scope == llvm::StringRef::npos ? name : name.substr(scope + 2)).str();
}

inline std::string typeName(const llvm::Type *type);

inline std::string listOf(llvm::ArrayRef<llvm::Type *> types, bool isVariadic) {
  std::string text;
  for (auto *type : types) text += (text.empty() ? "" : ", ") + typeName(type);
  if (isVariadic) text += text.empty() ? "..." : ", ...";
  return text;
}

inline std::string typeName(const llvm::Type *type) {
  using namespace llvm;
  if (auto *pointer = dyn_cast<PointerType>(type)) {
    if (pointer->isOpaque()) return "ptr";
    const Type *pointee = pointer->getNonOpaquePointerElementType();
    while (auto *array = dyn_cast<ArrayType>(pointee)) pointee = array->getElementType();
    return (isa<FunctionType>(pointee) || isPlaceholder(pointee) ? "fn" : typeName(pointee)) + "*";
  }
  if (auto *function = dyn_cast<FunctionType>(type))
    return typeName(function->getReturnType()) + " (" + listOf(function->params(), function->isVarArg()) + ")";
  if (auto *record = dyn_cast<StructType>(type))
    return record->hasName() ? nameOf(record) : "{" + listOf(record->elements(), false) + "}";
  if (auto *array = dyn_cast<ArrayType>(type))
    return "[" + std::to_string(array->getNumElements()) + " x " + typeName(array->getElementType()) + "]";
  std::string text;
  raw_string_ostream stream(text);
  type->print(stream);
  return stream.str();
}

// The function type behind `levels` or more pointers; null if there is none. `levels` becomes the number of pointers.
inline const llvm::Type *behindPointers(const llvm::Type *type, unsigned &levels) {
  levels = 0;
  while (auto *pointer = llvm::dyn_cast<llvm::PointerType>(type)) {
    if (pointer->isOpaque()) break;
    type = pointer->getNonOpaquePointerElementType();
    ++levels;
  }
  return type;
}

}  // namespace chestnut
