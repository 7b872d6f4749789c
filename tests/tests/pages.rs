//! Pages may not drift from the repository: what they link to exists.

use std::path::Path;

/// Files whose links are checked.
const PAGES: [&str; 14] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/language.md",
    "docs/performance.md",
    "docs/performance/builds.md",
    "docs/performance/cpu.md",
    "docs/performance/hopper.md",
    "docs/performance/plan.md",
    "docs/performance/sm80.md",
    "docs/tuning.md",
    "dsl/ADD_AN_OP.md",
    "examples/downstream/README.md",
    "kernels-generated/README.md",
];

#[test]
fn links_of_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).expect(page);
        let folder = root.join(page);
        let folder = folder.parent().expect("a file is in a folder");
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(folder.join(file).exists(), "{page} links to {link}, which does not exist");
        }
    }
}

/// Targets of `[text](target)` that are paths, not addresses.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
        .collect()
}

#[test]
fn only_paths_are_links_to_check() {
    let text = "[a](docs/x.md) ![b](p.svg) [c](https://example.org) [d](y.md#part)";
    assert_eq!(links(text), ["docs/x.md", "p.svg", "y.md#part"]);
}

#[test]
fn kernels_of_pages_are_kernels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = 0;
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).expect(page);
        let blocks = text.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|b| b.contains("sparsek_kernel! {")) {
            let compiled = sparsek_dsl::parse::compile_file(block);
            assert!(compiled.diagnostics.is_empty(), "{page}: {:?}", compiled.diagnostics);
            found += compiled.kernels.len();
        }
    }
    assert_eq!(found, 2, "kernels in the pages");
}
