//! One kernel for each thing that can be wrong, as the command line shows it.
//!
//! Every case lies in `diagnostics/` as a Rust file; the snapshot beside it holds every diagnostic
//! of that file, rendered. `cases` names the rule that the file is about.

use sparsek_dsl::diagnostic::{Code, render};
use sparsek_dsl::parse::compile_file;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

/// Every case: name of the file without its extension, and its text.
fn cases() -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = std::fs::read_dir(folder())
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a readable case"))
        })
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_renders_as_recorded() {
    for (name, text) in cases() {
        let compiled = compile_file(&text);
        let shown: Vec<String> = compiled
            .diagnostics
            .iter()
            .map(|d| render(d, &compiled.spans, &format!("{name}.rs"), &text, false))
            .collect();
        insta::with_settings!({ snapshot_path => folder(), prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.clone(), shown.join("\n\n"));
        });
    }
}

#[test]
fn every_case_reports_the_rule_it_is_named_after_at_one_place() {
    for (name, text) in cases() {
        let compiled = compile_file(&text);
        let codes: Vec<&str> = compiled.diagnostics.iter().map(|d| d.code.name()).collect();
        let rule = name.split("--").next().unwrap_or_default();
        assert!(codes.contains(&rule), "{name} reports {codes:?}");
        for d in &compiled.diagnostics {
            let range = compiled.spans.range(d.primary).expect("a primary position");
            assert!(text.get(range.clone()).is_some(), "{name}: {range:?} is not in the text");
            assert!(!d.message.is_empty() && !d.message.ends_with('.'), "{name}: {}", d.message);
            assert!(
                d.help.is_some() || d.code == Code::Syntax,
                "{name}: {} has no help",
                d.message
            );
        }
        assert!(
            compiled.kernels.iter().any(|k| k.program.is_none())
                || compiled.kernels.is_empty()
                || rule == "rust-syntax",
            "{name}: every kernel has a program"
        );
    }
}

/// A rule without a case is one whose message nobody has read.
#[test]
fn every_rule_has_a_case() {
    let named: BTreeSet<String> =
        cases().iter().filter_map(|(name, _)| name.split("--").next().map(str::to_owned)).collect();
    // No text makes the compiler break its own rules, or it would be fixed.
    let rules = Code::ALL.iter().filter(|c| **c != Code::Internal);
    let missing: Vec<&str> = rules.map(|c| c.name()).filter(|n| !named.contains(*n)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
