//! Parser and checker never panic, whatever the tokens; every diagnostic has one place in the
//! text; a kernel has a program exactly when nothing is wrong with it.

mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use sparsek_dsl::diagnostic::render;
use sparsek_dsl::ir::check;
use sparsek_dsl::parse::{compile_file, compile_tokens};

/// Words of the language and of Rust around it.
const WORDS: &[&str] = &[
    "pub",
    "kernel",
    "Name",
    "Other",
    "E",
    "D",
    "K",
    "W",
    "in",
    "bf16",
    "f32",
    "multiples_of",
    "up",
    "to",
    "q",
    "k",
    "v",
    "u",
    "Query",
    "Key",
    "Value",
    "PerKey",
    "PerHead",
    "PerQuery",
    "Scalar",
    "Output",
    "i32",
    "let",
    "gate",
    "seen",
    "s",
    "p",
    "sparsek",
    "topk",
    "window",
    "sinks",
    "causal",
    "softmax",
    "dot",
    "sink",
    "straight_through",
    "softcap",
    "exp",
    "log",
    "select",
    "clamp",
    "min",
    "sqrt",
    "rsqrt",
    "batch",
    "pos",
    "head",
    "schedule",
    "forward",
    "backward",
    "tile",
    "kv",
    "warps",
    "stages",
    "if",
    "else",
    "for",
    "while",
    "return",
    "as",
    "mut",
    "unsafe",
    "match",
    "true",
    "self",
    "r#type",
    "crate",
    "fn",
    "=",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&",
    "&&",
    "|",
    "||",
    "!",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "->",
    "=>",
    "..",
    "..=",
    ".",
    ",",
    ";",
    ":",
    "::",
    "#",
    "?",
    "@",
    "$",
    "0",
    "1",
    "4",
    "16",
    "64",
    "4096",
    "2147483648",
    "99999999999999999999",
    "1.0",
    "30.0",
    "1e39",
    "1e-60",
    "0x10",
    "1u8",
    "1.0f64",
    "'a'",
    "'a",
    "\"text\"",
    "b\"x\"",
    "/// doc\n",
    "#[doc = \"x\"]",
    "sparsek_kernel!",
    "é",
];

/// A bracketed or plain stretch of random words.
fn tokens() -> impl Strategy<Value = String> {
    let word = prop::sample::select(WORDS).prop_map(str::to_owned);
    let leaf = vec(word, 0..12).prop_map(|w| w.join(" "));
    leaf.prop_recursive(4, 96, 6, |inner| {
        (vec(inner, 1..6), prop::sample::select(&["", "()", "[]", "{}", "<>"][..])).prop_map(
            |(parts, brackets)| {
                let (open, close) = brackets.split_at(brackets.len() / 2);
                format!("{open} {} {close}", parts.join(" "))
            },
        )
    })
}

/// What must hold for every text.
fn holds(text: &str) {
    let compiled = compile_file(text);
    for d in &compiled.diagnostics {
        let range = compiled.spans.range(d.primary);
        let range = range.unwrap_or_else(|| panic!("{d:?} has no place"));
        assert!(text.get(range.clone()).is_some(), "{range:?} of {d:?} is not in the text");
        assert!(!render(d, &compiled.spans, "file.rs", text, false).is_empty());
        assert_ne!(d.code.name(), "internal", "{d:?}");
    }
    for kernel in &compiled.kernels {
        match &kernel.program {
            Some(program) => assert!(check::well_formed(program).is_empty()),
            None => assert!(!compiled.diagnostics.is_empty(), "nothing is wrong with {text}"),
        }
        assert!(!kernel.ast.dump().is_empty() && !kernel.ast.to_string().is_empty());
    }
    if let Ok(tokens) = text.parse() {
        compile_tokens(tokens);
    }
}

/// The tokens of the sample kernel, one text each, brackets apart.
fn sample_tokens() -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    for c in common::FULL
        .lines()
        .filter(|l| !l.starts_with("///"))
        .flat_map(|l| (l.to_owned() + "\n").chars().collect::<Vec<_>>())
    {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else {
            out.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            // Dots stay with what is around them, so that `30.0` and `..=` survive.
            out.extend((!c.is_whitespace()).then(|| c.to_string()));
        }
    }
    out
}

/// Joins tokens so that numbers and multi-character operators are read as before.
fn joined(tokens: &[String]) -> String {
    let mut out = String::new();
    for (n, token) in tokens.iter().enumerate() {
        let word = |t: &str| t.chars().all(|c| c.is_alphanumeric() || c == '_');
        if n > 0 && word(token) && word(&tokens[n - 1]) {
            out.push(' ');
        }
        out.push_str(token);
    }
    out
}

/// A change to a list of tokens.
#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Replace(usize, &'static str),
    Insert(usize, &'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = 0usize..10_000;
    let word = prop::sample::select(WORDS);
    prop_oneof![
        at.clone().prop_map(Mutation::Delete),
        at.clone().prop_map(Mutation::Duplicate),
        (at.clone(), at.clone()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        (at.clone(), word.clone()).prop_map(|(a, w)| Mutation::Replace(a, w)),
        (at, word).prop_map(|(a, w)| Mutation::Insert(a, w)),
    ]
}

fn mutate(tokens: &mut Vec<String>, mutation: &Mutation) {
    let n = tokens.len().max(1);
    match mutation {
        Mutation::Delete(a) => {
            tokens.remove(a % n);
        }
        Mutation::Duplicate(a) => {
            let token = tokens[a % n].clone();
            tokens.insert(a % n, token);
        }
        Mutation::Swap(a, b) => tokens.swap(a % n, b % n),
        Mutation::Replace(a, w) => tokens[a % n] = format!(" {w} "),
        Mutation::Insert(a, w) => tokens.insert(a % n, format!(" {w} ")),
    }
}

#[test]
fn the_sample_survives_being_split_and_joined() {
    let text = joined(&sample_tokens());
    let compiled = compile_file(&text);
    assert!(compiled.diagnostics.is_empty(), "{text}\n{:?}", compiled.diagnostics);
    assert!(compiled.kernels[0].program.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_tokens_never_panic(text in tokens()) {
        holds(&text);
    }

    #[test]
    fn random_tokens_in_an_invocation_never_panic(text in tokens()) {
        holds(&format!("mod m {{ sparsek::sparsek_kernel! {{ {text} }} }}"));
    }

    #[test]
    fn random_bodies_never_panic(text in tokens()) {
        let head = common::FULL.split("let s").next().unwrap_or_default();
        holds(&format!("{head} {text} }}"));
        holds(&format!("{head} let s = {text}; let p = softmax(s, seen); dot(p * gate, v) }}"));
    }

    #[test]
    fn mutated_kernels_never_panic(mutations in vec(mutation(), 1..4)) {
        let mut tokens = sample_tokens();
        for m in &mutations {
            mutate(&mut tokens, m);
        }
        holds(&joined(&tokens));
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        holds(&text);
        holds(&format!("pub kernel {text}"));
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let nested = |open: &str, close: &str, n: usize| {
        format!(
            "pub kernel A(q: Query<f32, 64>, k: Key<f32, 64>, v: Key<f32, 64>) -> Output<f32, 64> {{ \
             let s = {}dot(q, k){}; dot(softmax(s, causal & window(1)), v) }}",
            open.repeat(n),
            close.repeat(n)
        )
    };
    let deep = [
        nested("(", ")", 100_000),
        nested("exp(", ")", 20_000),
        nested("-", "", 100_000),
        nested("!", "", 100_000),
        nested("", " + 1.0", 100_000),
        nested("{", "}", 50_000),
        nested("if x {", "} else { y }", 10_000),
        nested("return ", "", 50_000),
        nested("|x| ", "", 50_000),
        nested("1.0 < ", "", 50_000),
        nested("&", "", 50_000),
    ];
    for text in &deep {
        let codes: Vec<&str> =
            compile_file(text).diagnostics.iter().map(|d| d.code.name()).collect();
        assert_eq!(codes, ["too-deep"], "{}", &text[..150]);
    }
    // Just inside the limits everything works, on the small stack of a test thread.
    for text in [nested("(", ")", 60), nested("exp(", ")", 60), nested("-", "", 200)] {
        let compiled = compile_file(&text);
        assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    }
    holds(&nested("", " + 1.0", 200));
    holds(&format!("fn f() {{ {} }}", nested("(", ")", 100_000)));
}
