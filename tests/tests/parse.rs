//! Source text to programs and back.

mod common;

use sparsek_dsl::diagnostic::render;
use sparsek_dsl::ir::{Op, Program};
use sparsek_dsl::parse::{compile_file, compile_tokens};

/// The one program of a text without anything wrong.
fn program(text: &str) -> Program {
    let mut compiled = compile_file(text);
    let shown: Vec<String> = compiled
        .diagnostics
        .iter()
        .map(|d| render(d, &compiled.spans, "kernel.rs", text, false))
        .collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    assert_eq!(compiled.kernels.len(), 1);
    compiled.kernels.remove(0).program.expect("a kernel without diagnostics has a program")
}

#[test]
fn the_typed_program_of_a_full_kernel() {
    insta::assert_snapshot!(program(common::FULL));
}

#[test]
fn the_tree_of_a_full_kernel() {
    insta::assert_snapshot!(compile_file(common::FULL).kernels[0].ast.dump());
}

#[test]
fn the_tree_prints_as_the_source_it_was_read_from() {
    let ast = &compile_file(common::FULL).kernels[0].ast;
    insta::assert_snapshot!(ast);
    assert_eq!(compile_file(&ast.to_string()).kernels[0].ast.to_string(), ast.to_string());
}

#[test]
fn printed_programs_read_back_equal() {
    let samples = common::SAMPLES.iter().map(|body| common::kernel(body));
    for text in samples.chain([common::FULL.to_owned()]) {
        let first = program(&text);
        let printed = first.to_string();
        let second = program(&printed);
        let compared = [&first, &second].map(|p| p.canonical().to_json());
        assert_eq!(compared[0], compared[1], "{text}\nprints as\n{printed}");
        assert_eq!(first.schedule, second.schedule);
        assert_eq!(first.docs, second.docs);
        assert_eq!(second.to_string(), printed);
        let loaded = Program::from_json(&first.to_json()).expect("a program that was just written");
        assert_eq!(loaded.to_string(), printed);
    }
}

#[test]
fn kernels_are_found_wherever_they_stand_in_a_file() {
    let invocation = |name: &str| {
        format!(
            "sparsek_kernel! {{ pub kernel {name}(q: Query<f32, 16>, k: Key<f32, 16>, \
             v: Key<f32, 16>) -> Output<f32, 16> {{ dot(softmax(dot(q, k), causal & window(1)), v) }} }}"
        )
    };
    let text = format!(
        "//! A crate.\nuse sparsek::sparsek_kernel;\n{}\nmod inner {{ mod deep {{ ::sparsek::{} }} }}\n\
         fn main() {{ let f = || {{ sparsek::{} }}; }}\n\
         macro_rules! sparsek_kernel_like {{ () => {{ {} }} }}\n\
         const TEXT: &str = \"sparsek_kernel! {{ }}\"; // sparsek_kernel! {{ }}\n",
        invocation("First"),
        invocation("Second"),
        invocation("Third"),
        invocation("InARule"),
    );
    let compiled = compile_file(&text);
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let names: Vec<&str> = compiled.kernels.iter().map(|k| k.ast.name.text.as_str()).collect();
    assert_eq!(names, ["First", "Second", "Third"]);
}

#[test]
fn a_file_without_kernels_is_fine() {
    for text in ["", "fn main() {}", "\u{feff}#![allow(unused)]\nmod m;\n"] {
        let compiled = compile_file(text);
        assert!(compiled.kernels.is_empty() && compiled.diagnostics.is_empty(), "{text:?}");
    }
}

#[test]
fn positions_are_right_behind_a_byte_order_mark_and_wide_characters() {
    let text = "\u{feff}// é ∑ 𝄞\nsparsek_kernel! { kernel A(q: Query<f32, 16>, k: Key<f32, 16>, \
                v: Key<f32, 16>) -> Output<f32, 16> { /* é */ dot(softmax(dot(q, k), causal & window(1)) * nonsense, v) } }";
    let compiled = compile_file(text);
    let [only] = compiled.diagnostics.as_slice() else { panic!("{:?}", compiled.diagnostics) };
    let range = compiled.spans.range(only.primary).expect("a position");
    let without_mark = text.trim_start_matches('\u{feff}');
    assert_eq!(&without_mark[range], "nonsense");
    let shown = render(only, &compiled.spans, "a.rs", text, false);
    assert!(shown.contains("^^^^^^^^") && shown.contains("a.rs:2:"), "{shown}");
    assert!(render(only, &compiled.spans, "a.rs", text, true).contains("\u{1b}["));
    // A table of another text is no reason to fail.
    assert!(render(only, &compiled.spans, "a.rs", "short", false).contains("nonsense"));
}

#[test]
fn integer_literals_and_integers_become_numbers_in_arithmetic() {
    let p = program(&common::kernel(common::SAMPLES[10]));
    assert!(p.nodes.iter().any(|n| matches!(n.op, Op::Const(c) if c.get() == 3.0)));
    assert!(p.nodes.iter().any(|n| matches!(n.op, Op::Int(3))));
    let converted = |op: &Op| matches!(op, Op::ToFloat(x) if matches!(p.node(*x).op, Op::Int(_)));
    assert!(!p.nodes.iter().any(|n| converted(&n.op)));
}

#[test]
fn predicates_are_flattened() {
    let p = program(&common::kernel(common::SAMPLES[8]));
    assert_eq!(p.seen_set().predicates.len(), 4);
}

#[test]
fn tokens_and_text_give_the_same_program() {
    let tokens = common::FULL.parse().expect("tokens");
    let compiled = compile_tokens(tokens);
    assert!(compiled.diagnostics.is_empty());
    let from_tokens = compiled.kernels[0].program.as_ref().expect("a program");
    assert_eq!(from_tokens.to_json(), program(common::FULL).to_json());
}

#[test]
fn the_value_type_is_another_word_for_the_key_type_of_v() {
    let text = common::FULL.replace("v: Key<E, D>", "v: Value<E, D>");
    assert_eq!(program(&text).to_json(), program(common::FULL).to_json());
}

/// The codes and labels of a text's diagnostics.
fn reported(text: &str) -> Vec<(&'static str, String)> {
    let compiled = compile_file(text);
    compiled.diagnostics.iter().map(|d| (d.code.name(), d.label.clone())).collect()
}

#[test]
fn a_type_on_a_let_is_one_mistake() {
    let text = common::FULL.replacen("let seen =", "let seen: Set<4> =", 1);
    assert_ne!(text, common::FULL);
    assert_eq!(reported(&text), [("not-in-language", String::new())]);
}

#[test]
fn a_union_without_brackets_is_explained_by_precedence() {
    let text =
        "pub kernel A(q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>) -> Output<f32, 16> {
        dot(softmax(dot(q, k), causal & window(4) | sinks(1)), v)
    }";
    let label = "more than those; `&` binds tighter than `|`".to_owned();
    assert_eq!(reported(text), [("seen-shape", label)]);
}

#[test]
fn functions_that_exist_are_offered_for_methods() {
    let text = "pub kernel A(q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>, t: Scalar) -> Output<f32, 16> {
        dot(softmax(dot(q, k) * t.sqrt(), causal & window(4)), v)
    }";
    let help = compile_file(text).diagnostics.remove(0).help;
    assert!(help.is_some_and(|h| h.ends_with("`sqrt(x)`")));
}

#[test]
fn a_gate_in_the_place_of_its_keys_is_told_topk() {
    let text = common::FULL.replacen("topk(gate) |", "gate |", 1);
    let help = compile_file(&text).diagnostics.remove(0).help;
    assert!(help.as_deref().is_some_and(|h| h.contains("`topk(gate)`")), "{help:?}");
}

#[test]
fn a_kernel_may_have_thousands_of_lets() {
    let mut text = "pub kernel A(q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>, t: Scalar) -> Output<f32, 16> {
        let x0 = dot(q, k);\n"
        .to_owned();
    let count = 4000;
    for n in 0..count {
        text += &format!("let x{} = x{n} * t;\n", n + 1);
    }
    text += &format!("dot(softmax(x{count}, causal & window(4)), v) }}");
    let forward = program(&text);
    let backward = sparsek_dsl::backward::derive(&forward);
    assert!(sparsek_dsl::ir::check::well_formed(&backward).is_empty());
    assert_eq!(backward.outputs.len(), 4);
    // Nothing is too deep to be printed, or to be read back.
    assert!(backward.to_string().contains("d_t: "));
    let mut unnamed = forward.clone();
    unnamed.nodes.iter_mut().for_each(|node| node.name = None);
    let read = program(&unnamed.to_string());
    assert_eq!(read.canonical().to_json(), forward.canonical().to_json());
}
