//! The rules by name.

use std::fmt;

/// Which rule a diagnostic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    // Reading the text.
    /// The file is not Rust.
    RustSyntax,
    /// Something else was expected at this place.
    Syntax,
    /// A Rust construct that kernels do not have.
    NotInLanguage,
    /// `&&` or `||` where `&` or `|` is meant.
    LogicalOperator,
    /// A comparison next to `&` or `|` without parentheses.
    Precedence,
    /// Nesting or an operator chain beyond the limit.
    TooDeep,
    /// A number that f32 cannot hold.
    FloatRange,
    /// An integer outside the range of its place.
    IntRange,
    /// An invocation without a kernel.
    NoKernel,
    // Names.
    /// A name that nothing has.
    UnknownName,
    /// A function that the language lacks.
    UnknownFunction,
    /// A type that inputs cannot have.
    UnknownType,
    /// A name that has a meaning already.
    ReservedName,
    /// A name given twice.
    DuplicateName,
    /// An input that nothing reads.
    UnusedInput,
    /// A `let` that nothing reads.
    UnusedLet,
    /// A parameter that nothing reads.
    UnusedParameter,
    // Parameters, inputs and their sets.
    /// A set without members.
    EmptySet,
    /// A set that is not well formed.
    InvalidSet,
    /// A set with members that its use does not allow.
    SetOutsideLimits,
    /// Two places that must agree and do not.
    Mismatch,
    /// A size that is neither an integer literal nor a parameter.
    Extent,
    /// A kernel without q, k or v.
    MissingInput,
    /// An input whose name and type do not go together.
    InputRole,
    /// A default that is not a constant of the input's type.
    Default,
    // Types.
    /// Too many or too few arguments.
    ArgumentCount,
    /// An argument name that the function does not have.
    UnknownArgument,
    /// A value that varies over other indices than its place allows.
    WrongClass,
    /// A mask, key set or vector where a number is needed.
    NotANumber,
    /// A number, key set or vector where a mask is needed.
    NotAMask,
    /// Something other than the vectors that a product needs.
    NotAVector,
    /// Key where the value is needed, or the other way round.
    WrongVector,
    // Shape of a kernel.
    /// More than one softmax.
    TwoSoftmaxes,
    /// More than one `sparsek`.
    TwoGates,
    /// A gate whose selection is not in the seen set.
    GateWithoutTopk,
    /// `topk` or `straight_through` of something that is not a gate.
    TopkOfOther,
    /// A seen set without selection, window and sinks.
    DenseSeen,
    /// A seen set without `causal`.
    MissingCausal,
    /// A seen set of another form than the language has.
    SeenShape,
    /// A predicate that depends on a product, a softmax or the gate.
    PredicateDependence,
    /// A score that depends on a product, a softmax or the gate.
    ScoreDependence,
    /// A logit without dot(q, k).
    MissingProduct,
    /// A weight that is not linear in the softmax.
    NotLinear,
    /// A result that is not dot(weights, v).
    ResultShape,
    // Schedule.
    /// A pass, knob or value given twice.
    ScheduleDuplicate,
    /// A knob without values.
    ScheduleEmpty,
    /// A value that the knob cannot have.
    ScheduleValue,
    /// A pass or knob that does not exist.
    ScheduleName,
    // The compiler.
    /// The compiler broke a rule of its own.
    Internal,
}

impl Code {
    /// Every rule.
    pub const ALL: [Code; 49] = [
        Code::RustSyntax,
        Code::Syntax,
        Code::NotInLanguage,
        Code::LogicalOperator,
        Code::Precedence,
        Code::TooDeep,
        Code::FloatRange,
        Code::IntRange,
        Code::NoKernel,
        Code::UnknownName,
        Code::UnknownFunction,
        Code::UnknownType,
        Code::ReservedName,
        Code::DuplicateName,
        Code::UnusedInput,
        Code::UnusedLet,
        Code::UnusedParameter,
        Code::EmptySet,
        Code::InvalidSet,
        Code::SetOutsideLimits,
        Code::Mismatch,
        Code::Extent,
        Code::MissingInput,
        Code::InputRole,
        Code::Default,
        Code::ArgumentCount,
        Code::UnknownArgument,
        Code::WrongClass,
        Code::NotANumber,
        Code::NotAMask,
        Code::NotAVector,
        Code::WrongVector,
        Code::TwoSoftmaxes,
        Code::TwoGates,
        Code::GateWithoutTopk,
        Code::TopkOfOther,
        Code::DenseSeen,
        Code::MissingCausal,
        Code::SeenShape,
        Code::PredicateDependence,
        Code::ScoreDependence,
        Code::MissingProduct,
        Code::NotLinear,
        Code::ResultShape,
        Code::ScheduleDuplicate,
        Code::ScheduleEmpty,
        Code::ScheduleValue,
        Code::ScheduleName,
        Code::Internal,
    ];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Code::RustSyntax => "rust-syntax",
            Code::Syntax => "syntax",
            Code::NotInLanguage => "not-in-language",
            Code::LogicalOperator => "logical-operator",
            Code::Precedence => "precedence",
            Code::TooDeep => "too-deep",
            Code::FloatRange => "float-range",
            Code::IntRange => "int-range",
            Code::NoKernel => "no-kernel",
            Code::UnknownName => "unknown-name",
            Code::UnknownFunction => "unknown-function",
            Code::UnknownType => "unknown-type",
            Code::ReservedName => "reserved-name",
            Code::DuplicateName => "duplicate-name",
            Code::UnusedInput => "unused-input",
            Code::UnusedLet => "unused-let",
            Code::UnusedParameter => "unused-parameter",
            Code::EmptySet => "empty-set",
            Code::InvalidSet => "invalid-set",
            Code::SetOutsideLimits => "set-outside-limits",
            Code::Mismatch => "mismatch",
            Code::Extent => "extent",
            Code::MissingInput => "missing-input",
            Code::InputRole => "input-role",
            Code::Default => "default",
            Code::ArgumentCount => "argument-count",
            Code::UnknownArgument => "unknown-argument",
            Code::WrongClass => "wrong-class",
            Code::NotANumber => "not-a-number",
            Code::NotAMask => "not-a-mask",
            Code::NotAVector => "not-a-vector",
            Code::WrongVector => "wrong-vector",
            Code::TwoSoftmaxes => "two-softmaxes",
            Code::TwoGates => "two-gates",
            Code::GateWithoutTopk => "gate-without-topk",
            Code::TopkOfOther => "topk-of-other",
            Code::DenseSeen => "dense-seen",
            Code::MissingCausal => "missing-causal",
            Code::SeenShape => "seen-shape",
            Code::PredicateDependence => "predicate-dependence",
            Code::ScoreDependence => "score-dependence",
            Code::MissingProduct => "missing-product",
            Code::NotLinear => "not-linear",
            Code::ResultShape => "result-shape",
            Code::ScheduleDuplicate => "schedule-duplicate",
            Code::ScheduleEmpty => "schedule-empty",
            Code::ScheduleValue => "schedule-value",
            Code::ScheduleName => "schedule-name",
            Code::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
