//! What holds for every generated program as text and as a program.

use super::cases::{Case, reread};
use sparsek_dsl::backward::derive;
use sparsek_dsl::ir::{Class, Coord, Op, Program, check};
use sparsek_reference::generate;
use std::collections::BTreeSet;

#[test]
fn programs_and_their_backwards_are_well_formed() {
    for seed in 0..1000 {
        let program = generate::random(seed, 12).program;
        let backward = derive(&program);
        for p in [&program, &backward] {
            let broken = check::well_formed(p);
            assert!(broken.is_empty(), "seed {seed}: {broken:?}\n{p}");
        }
    }
}

/// Names of everything the language has that occurs in a program.
fn features(program: &Program, found: &mut BTreeSet<String>) {
    for v in program.ids() {
        let name = match &program.node(v).op {
            Op::Unary(f, _) => f.name().to_owned(),
            Op::Binary(f, ..) => f.name().to_owned(),
            Op::Compare(f, ..) => f.name().to_owned(),
            Op::Logic(f, ..) => f.name().to_owned(),
            Op::Coord(c) => c.name().to_owned(),
            Op::Param(_) => "parameter".to_owned(),
            Op::Not(_) => "!".to_owned(),
            Op::Select(..) => "select".to_owned(),
            Op::Sparsek { .. } => "sparsek".to_owned(),
            Op::StraightThrough(_) => "straight_through".to_owned(),
            Op::Softmax { sink: Some(_), .. } => "sink".to_owned(),
            Op::Seen(seen) => {
                let mut add = |there: bool, name: &str| {
                    if there {
                        found.insert(name.to_owned());
                    }
                };
                add(seen.topk.is_none(), "no topk");
                add(seen.window.is_none(), "no window");
                add(seen.window.is_some(), "window");
                add(seen.sinks.is_some(), "sinks");
                add(seen.predicates.len() > 1, "predicates");
                continue;
            }
            _ => continue,
        };
        found.insert(name);
    }
    for input in &program.inputs {
        let kind = if input.ty.differentiable() { "" } else { " i32" };
        found.insert(format!("{}{kind}", input.ty.class));
        if input.default.is_some() {
            found.insert("default".to_owned());
        }
    }
}

#[test]
fn the_grammar_reaches_the_whole_language() {
    let mut found = BTreeSet::new();
    (0..400).for_each(|seed| features(&generate::random(seed, 12).program, &mut found));
    let words = "+ - * / min max exp log tanh sigmoid abs sqrt rsqrt == != < <= > >= & | ! select \
                 parameter sparsek straight_through sink window sinks predicates default";
    let wanted = words.split_whitespace().map(str::to_owned);
    let wanted = wanted.chain(Coord::ALL.iter().map(|c| c.name().to_owned()));
    let classes = [Class::Scalar, Class::PerHead, Class::PerQuery, Class::PerKey];
    let wanted = wanted.chain(classes.iter().flat_map(|c| [c.to_string(), format!("{c} i32")]));
    let wanted = wanted.chain(["no topk".to_owned(), "no window".to_owned()]);
    let missing: Vec<String> = wanted.filter(|w| !found.contains(w)).collect();
    assert!(missing.is_empty(), "never generated: {missing:?}");
}

#[test]
fn programs_are_read_back_from_their_text() {
    for seed in 0..500 {
        let program = generate::random(seed, 12).program;
        let read = reread(seed, &program);
        let (want, got) = (program.canonical(), read.canonical());
        assert_eq!(format!("{got:#?}"), format!("{want:#?}"), "seed {seed}\n{program}");
    }
}

#[test]
fn seeds_determine_programs_and_inputs() {
    let (a, b, other) = (Case::new(7), Case::new(7), Case::new(8));
    assert_eq!(a.generated.program.to_string(), b.generated.program.to_string());
    assert_eq!(a.inputs, b.inputs);
    assert_ne!(a.generated.program.to_string(), other.generated.program.to_string());
}
