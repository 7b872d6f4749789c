//! What the macro says: the cases of `diagnostics/` as compile errors. Invocations that compile are in `expansion/`:
//! with one among these cases trybuild would build every dependency once more, not check it.

/// Every case of `diagnostics/` but those that rustc reports itself.
#[test]
fn wrong_kernels_are_compile_errors_at_their_tokens() {
    let cases = trybuild::TestCases::new();
    // A tensor that is left out is a missing field.
    cases.compile_fail("tests/ui_fail/*.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/diagnostics");
    for entry in std::fs::read_dir(folder).expect("the folder of cases") {
        let name =
            entry.expect("an entry of the folder").file_name().to_string_lossy().into_owned();
        if name.ends_with(".rs") && !name.starts_with("rust-syntax") {
            cases.compile_fail(format!("tests/diagnostics/{name}"));
        }
    }
}
