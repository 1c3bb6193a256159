// The notes of an object file for Chestnut: a pass plug-in for clang 14 (`record.rs` reads them).
//
// Two passes. The first runs before all others and keeps what optimisation takes away: casts, and types as the source
// has them. The second runs behind all others and writes, for each function as it will be compiled, what it calls, of
// which types its indirect calls are, whose address it takes, which system calls its assembly makes. What the back end
// adds (`memcpy`, jump tables) is no indirect call; its direct calls are seen in the machine code.
//
// The notes are written as assembly of a function of no length behind all others, because only there the names of the
// functions are known to the assembler: each note's section is linked to that of its function (SHF_LINK_ORDER), so that
// the linker drops them together, and needs no memory in the process.

#include "facts.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Mangler.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Passes/PassPlugin.h"
#include "llvm/Support/Path.h"
#include "llvm/Transforms/IPO/ConstantMerge.h"
#include "llvm/Transforms/IPO/GlobalDCE.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"
#include <memory>
#include <vector>

using namespace llvm;
namespace chestnut {
namespace {

constexpr const char *Section = ".note.chestnut.calls";
constexpr const char *Holder = ".chestnut.notes";
constexpr unsigned Version = 2, Machine = 62;
enum Kind : unsigned { OfFunction = 1, OfVariable = 2, OfModule = 3 };
enum Flag : unsigned { Local = 1, Weak = 2, Opaque = 4 };

using Texts = std::vector<std::string>;

void addOnce(Texts &texts, std::string text) {
  if (!is_contained(texts, text)) texts.push_back(std::move(text));
}

// The descriptor of a note: the address of what it is about, if any, then bytes.
struct Note {
  unsigned kind;
  std::string symbol;
  std::string bytes;

  void text(const std::string &value) { bytes += value + '\0'; }
  // An empty text ends the list.
  void list(const Texts &values) {
    for (auto &value : values) text(value.empty() ? "?" : value);
    bytes += '\0';
  }
  void number(uint64_t value, unsigned size) {
    for (unsigned at = 0; at < size; ++at) bytes += char(value >> (8 * at));
  }
};

// What one function does, as it is compiled.
class Body {
 public:
  // With `hasMacros` the words of assembly are not known.
  Body(const Function &function, bool hasMacros) : hasMacros(hasMacros) {
    for (auto &instruction : instructions(function)) {
      if (auto *call = dyn_cast<CallBase>(&instruction)) callIn(*call);
      for (auto &operand : instruction.operands()) {
        auto *call = dyn_cast<CallBase>(&instruction);
        if (call && call->isCallee(&operand) && target(*operand)) continue;
        if (auto *constant = dyn_cast<Constant>(operand)) takes(*constant);
      }
    }
    if (function.hasPersonalityFn()) takes(*function.getPersonalityFn());
  }

  Texts called, types, taken, handed, syscalls;
  bool isOpaque = false;

  // The function or alias that a constant stands for.
  static const GlobalValue *target(const Value &value) {
    auto *global = dyn_cast<GlobalValue>(value.stripPointerCasts());
    return global && isa<FunctionType>(global->getValueType()) ? global : nullptr;
  }

  static void functionsIn(const Constant &constant, Texts &found) {
    if (auto *global = target(constant)) {
      auto *function = dyn_cast<Function>(global);
      if (!function || !function->isIntrinsic()) addOnce(found, linkName(*global));
    } else if (!isa<GlobalValue>(constant) && !isa<BlockAddress>(constant)) {
      for (auto &operand : constant.operands()) functionsIn(*cast<Constant>(operand), found);
    }
  }

 private:
  bool hasMacros;

  void takes(const Constant &constant) { functionsIn(constant, taken); }

  void callIn(const CallBase &call) {
    if (auto *assembly = dyn_cast<InlineAsm>(call.getCalledOperand())) return assemblyIn(call, *assembly);
    auto *callee = target(*call.getCalledOperand());
    if (!callee) return addOnce(types, typeName(call.getFunctionType()));
    auto *function = dyn_cast<Function>(callee);
    if (function && function->isIntrinsic()) return;
    std::string name = linkName(*callee);
    addOnce(called, name);
    if (name == "syscall") syscalls.push_back("function " + argumentsOf(call, 0));
    unsigned index = 0;
    for (auto *parameter : call.getFunctionType()->params()) {
      unsigned levels;
      auto *type = behindPointers(parameter, levels);
      if (levels == 1 && isa<FunctionType>(type))
        addOnce(handed, name + "\t" + std::to_string(index) + "\t" + typeName(type));
      ++index;
    }
  }

  static std::string valueText(const Value *value) {
    auto *number = dyn_cast_or_null<ConstantInt>(value);
    if (number && number->getBitWidth() <= 64) return std::to_string(number->getSExtValue());
    return isa_and_nonnull<ConstantPointerNull>(value) ? "0" : "?";
  }

  static std::string argumentsOf(const CallBase &call, unsigned first) {
    std::string text;
    for (unsigned index = first; index < call.arg_size(); ++index)
      text += (index > first ? " " : "") + valueText(call.getArgOperand(index));
    return text.empty() ? "?" : text;
  }

  void assemblyIn(const CallBase &call, const InlineAsm &assembly) {
    StringRef text = assembly.getAsmString();
    bool entersKernel = false;
    isOpaque |= hasMacros;
    for (auto word : wordsOf(text)) {
      // Directives may write any bytes; these do not.
      if (word.startswith(".cfi_") || word == ".align" || word == ".balign" || word == ".p2align") continue;
      bool isJump = word.startswith_insensitive("j") || word.startswith_insensitive("loop");
      bool leaves = word.startswith_insensitive("call") || word.startswith_insensitive("ret") ||
                    word.startswith_insensitive("ljmp") || word.startswith_insensitive("lcall") ||
                    word.startswith_insensitive("iret") || word.startswith(".");
      entersKernel |= word.equals_insensitive("syscall");
      isOpaque |= isJump || leaves;
    }
    if (entersKernel) syscalls.push_back(registersOf(call, assembly));
  }

  // The number and the arguments of a `syscall` instruction, by the registers that constraints name.
  static std::string registersOf(const CallBase &call, const InlineAsm &assembly) {
    const std::vector<std::vector<StringRef>> registers = {{"{ax}", "{rax}", "{eax}"}, {"{di}", "{rdi}"},
                                                           {"{si}", "{rsi}"},          {"{dx}", "{rdx}"},
                                                           {"{r10}"}, {"{r8}"}, {"{r9}"}};
    std::vector<const Value *> values(registers.size(), nullptr);
    auto constraints = assembly.ParseConstraints();
    unsigned argument = 0;
    for (auto &constraint : constraints) {
      bool isInput = constraint.Type == InlineAsm::isInput;
      if (!isInput && !(constraint.Type == InlineAsm::isOutput && constraint.isIndirect)) continue;
      const Value *value = argument < call.arg_size() ? call.getArgOperand(argument) : nullptr;
      ++argument;
      if (!isInput) continue;
      const auto *codes = &constraint.Codes;
      unsigned tied;
      if (!codes->empty() && !StringRef(codes->front()).getAsInteger(10, tied) && tied < constraints.size())
        codes = &constraints[tied].Codes;
      for (size_t index = 0; index < registers.size(); ++index)
        if (any_of(*codes, [&](const std::string &code) { return is_contained(registers[index], code); }))
          values[index] = value;
    }
    std::string text = "instruction";
    for (auto *value : values) text += " " + valueText(value);
    return text;
  }
};

class NoteWriter {
 public:
  NoteWriter(Module &module, const Facts &facts) : module(module), facts(facts) {
    for (auto &alias : module.aliases()) names(alias, alias.getAliasee()->stripPointerCasts(), false);
    for (auto &resolved : module.ifuncs()) names(resolved, resolved.getResolver()->stripPointerCasts(), true);
    hasMacros = definesWords(module.getModuleInlineAsm());
    for (auto &function : module)
      for (auto &instruction : instructions(function))
        if (auto *call = dyn_cast<CallBase>(&instruction); call && call->isInlineAsm())
          hasMacros |= definesWords(cast<InlineAsm>(call->getCalledOperand())->getAsmString());
  }

  void run() {
    for (auto &function : module)
      if (!function.isDeclaration() && !function.hasAvailableExternallyLinkage()) ofFunction(function);
    for (auto &variable : module.globals())
      if (!variable.isDeclaration() && !variable.hasAvailableExternallyLinkage() && !variable.isThreadLocal())
        ofVariable(variable);
    ofModule();
    write();
  }

 private:
  Module &module;
  const Facts &facts;
  Mangler mangler;
  bool hasMacros;
  std::map<const Value *, Texts> aliases, resolved;
  std::string assembly;
  // Functions with the types of all that they call or pass on.
  Texts callers;

  void names(const GlobalValue &name, const Value *of, bool isResolver) {
    (isResolver ? resolved : aliases)[of].push_back(linkName(name));
  }

  std::string symbolOf(const GlobalValue &value) {
    SmallString<64> name;
    mangler.getNameWithPrefix(name, &value, false);
    return quoted(name);
  }

  // As the assembler takes it in inline assembly.
  static std::string quoted(StringRef text) {
    std::string result = "\"";
    for (char c : text) {
      bool isPlain = isPrint(c) && c != '"' && c != '\\' && c != '$';
      if (isPlain) result += c;
      else if (c == '$') result += "$$";
      else result += {'\\', char('0' + ((uint8_t(c) >> 6) & 7)), char('0' + ((uint8_t(c) >> 3) & 7)), char('0' + (uint8_t(c) & 7))};
    }
    return result + "\"";
  }

  static unsigned linkage(const GlobalValue &value) {
    return (value.hasLocalLinkage() ? unsigned(Local) : 0) | (value.isWeakForLinker() ? unsigned(Weak) : 0);
  }

  static std::string groupOf(const GlobalObject &object) {
    return object.hasComdat() ? object.getComdat()->getName().str() : std::string();
  }

  void ofFunction(const Function &function) {
    Body body(function, hasMacros);
    std::string name = linkName(function);
    auto known = facts.types.find(name);
    Note note{OfFunction, symbolOf(function), {}};
    bool isOpaque = body.isOpaque || function.hasFnAttribute(Attribute::Naked);
    note.number(linkage(function) | (isOpaque ? unsigned(Opaque) : 0), 1);
    note.text(name);
    note.text(known != facts.types.end() ? known->second : typeName(function.getFunctionType()));
    for (auto *list : {&aliases[&function], &resolved[&function], &body.called, &body.types, &body.taken, &body.handed, &body.syscalls})
      note.list(*list);
    emit(note, linkedTo(function));
    Texts kinds = body.types;
    for (auto &text : body.handed) addOnce(kinds, text.substr(text.rfind('\t') + 1));
    if (!kinds.empty()) callers.push_back(name + "\t" + join(kinds, "\t"));
  }

  // The section of a note that goes where a function goes. GNU as takes no quotation marks there.
  std::string linkedTo(const Function &function) {
    std::string group = groupOf(function), symbol = symbolOf(function);
    StringRef name = StringRef(symbol).drop_front().drop_back();
    if (all_of(name, [](char c) { return isAlnum(c) || c == '_' || c == '.' || c == '$'; })) symbol = name.str();
    return group.empty() ? ",\"o\",@note," + symbol : ",\"Go\",@note," + quoted(group) + ",comdat," + symbol;
  }

  // The functions of this object that name a value, also by way of variables.
  static void usersOf(const Value &value, SmallPtrSetImpl<const Value *> &seen, std::vector<const Function *> &found) {
    if (!seen.insert(&value).second) return;
    for (const User *user : value.users()) {
      if (auto *instruction = dyn_cast<Instruction>(user)) {
        const Function *function = instruction->getFunction();
        if (!function->hasAvailableExternallyLinkage() && !is_contained(found, function)) found.push_back(function);
      } else if (isa<Constant>(user)) {
        usersOf(*user, seen, found);
      }
    }
  }

  void ofVariable(const GlobalVariable &variable) {
    if (variable.getName().startswith("llvm.")) return;
    Texts functions;
    Body::functionsIn(*variable.getInitializer(), functions);
    if (functions.empty()) return;
    Note note{OfVariable, symbolOf(variable), {}};
    note.number(linkage(variable), 1);
    note.number(module.getDataLayout().getTypeAllocSize(variable.getValueType()), 8);
    note.text(linkName(variable));
    note.list(functions);
    // GNU ld drops sections that refer to others and that nothing refers to, where it drops anything.
    std::string group = groupOf(variable);
    SmallPtrSet<const Value *, 16> seen;
    std::vector<const Function *> users;
    if (group.empty()) usersOf(variable, seen, users);
    for (auto *user : users) emit(note, linkedTo(*user));
    if (users.empty()) emit(note, group.empty() ? ",\"\",@progbits" : ",\"G\",@progbits," + quoted(group) + ",comdat");
  }

  void ofModule() {
    Note note{OfModule, {}, {}};
    note.text(sys::path::filename(module.getSourceFileName()).str());
    Texts seen, united;
    for (auto &[name, types] : facts.seen) {
      std::string text = name;
      for (auto &type : types) text += "\t" + type;
      seen.push_back(text);
    }
    for (auto &[one, other] : facts.united) united.push_back(one + "\t" + other);
    note.list(seen);
    note.list(united);
    note.list({facts.fromData.begin(), facts.fromData.end()});
    note.list({facts.toData.begin(), facts.toData.end()});
    // Once more: lld --icf drops the note of a function that it folds into another one.
    note.list(callers);
    // Of another type than those that have an order, which GNU ld -r does not mix.
    emit(note, ",\"\",@progbits,unique,1");
  }

  // Name, sizes and kind as in every ELF note; the descriptor begins with version and machine.
  void emit(const Note &note, const std::string &section) {
    size_t size = 4 + (note.symbol.empty() ? 0 : 8) + note.bytes.size();
    raw_string_ostream out(assembly);
    out << ".pushsection " << Section << section << "\n.p2align 2\n.long 9," << size << "," << note.kind
        << "\n.asciz \"Chestnut\"\n.p2align 2\n.short " << Version << "," << Machine << "\n";
    if (!note.symbol.empty()) {
      // By a name of its own: another definition may take the place of a weak one.
      static unsigned count = 0;
      std::string own = ".Lchestnut.note" + std::to_string(count++);
      out << ".set " << own << "," << note.symbol << "\n.quad " << own << "\n";
    }
    out << ".ascii " << quoted(note.bytes) << "\n.p2align 2\n.popsection\n";
  }

  void write() {
    auto &context = module.getContext();
    auto *type = FunctionType::get(Type::getVoidTy(context), false);
    auto *holder = Function::Create(type, GlobalValue::PrivateLinkage, Holder, module);
    for (auto kind : {Attribute::Naked, Attribute::NoUnwind, Attribute::NoInline, Attribute::OptimizeNone, Attribute::NoCfCheck})
      holder->addFnAttr(kind);
    holder->setAlignment(Align(1));
    appendToCompilerUsed(module, {holder});
    IRBuilder<> builder(BasicBlock::Create(context, "", holder));
    builder.CreateCall(InlineAsm::get(type, assembly, "", true));
    builder.CreateUnreachable();
  }
};

bool isUsable(const Module &module) {
  // With link-time optimisation functions change behind this pass; without typed pointers types are not known.
  return !module.getModuleFlag("ThinLTO") && !module.getModuleFlag("EnableSplitLTOUnit") &&
         module.getContext().supportsTypedPointers() && Triple(module.getTargetTriple()).getArch() == Triple::x86_64 &&
         Triple(module.getTargetTriple()).isOSBinFormatELF();
}

struct Keep : PassInfoMixin<Keep> {
  std::shared_ptr<Facts> facts;
  explicit Keep(std::shared_ptr<Facts> facts) : facts(std::move(facts)) {}
  PreservedAnalyses run(Module &module, ModuleAnalysisManager &) {
    if (isUsable(module)) FactFinder(*facts, module).run();
    return PreservedAnalyses::all();
  }
  static bool isRequired() { return true; }
};

struct Write : PassInfoMixin<Write> {
  std::shared_ptr<Facts> facts;
  explicit Write(std::shared_ptr<Facts> facts) : facts(std::move(facts)) {}
  PreservedAnalyses run(Module &module, ModuleAnalysisManager &) {
    if (!isUsable(module)) return PreservedAnalyses::all();
    NoteWriter(module, *facts).run();
    return PreservedAnalyses::none();
  }
  static bool isRequired() { return true; }
};

void registerPasses(PassBuilder &builder) {
  auto facts = std::make_shared<Facts>();
  builder.registerPipelineStartEPCallback(
      [facts](ModulePassManager &manager, OptimizationLevel) { manager.addPass(Keep(facts)); });
  builder.registerOptimizerLastEPCallback(
      [facts](ModulePassManager &manager, OptimizationLevel level) {
        // What the pipeline would still take away behind this pass has no note.
        if (level != OptimizationLevel::O0) {
          manager.addPass(GlobalDCEPass());
          manager.addPass(ConstantMergePass());
        }
        manager.addPass(Write(facts));
      });
}

}  // namespace
}  // namespace chestnut

extern "C" LLVM_ATTRIBUTE_WEAK PassPluginLibraryInfo llvmGetPassPluginInfo() {
  return {LLVM_PLUGIN_API_VERSION, "chestnut-notes", "1", chestnut::registerPasses};
}
