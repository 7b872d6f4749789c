//! Sources that differ by nothing but constants are one variant: which constants, and what is left
//! of a source without them.
//!
//! Constants are
//! * the values of `constexpr` declarations that are literals: extents, tile shapes, thread counts,
//!   flags;
//! * the head dimension's inverse root, which is folded into expressions as a literal, and what it becomes
//!   where other factors of a product of vectors are gathered with it;
//! * the functions of a wgmma instruction, one set for each width: tile extents are their widths.
//!
//! The header names kernel, schedule, target and input, and is no part of the code.

use std::collections::BTreeMap;

/// What [`split`] calls the literal 1/√D.
pub(crate) const INVERSE_ROOT: &str = "rsqrt(D)";

/// What stands before, and names, the gathered factors of a product of vectors.
pub(crate) const FACTOR: &str = "dot_qk * ";

/// Constants by name; those of a struct as `RowTile::POSITIONS`.
pub(crate) type Constants = BTreeMap<String, String>;

/// A source taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Equal for sources of one variant.
    pub(crate) form: String,
    pub(crate) constants: Constants,
}

/// Takes a source apart; `d` is its head dimension.
pub(crate) fn split(source: &str, d: i64) -> Split {
    let root = literal(1.0 / (d as f64).sqrt());
    let mut constants = Constants::new();
    let mut form = String::with_capacity(source.len());
    let mut scope = String::new();
    for paragraph in body(source).split("\n\n").filter(|p| !is_instruction(p)) {
        for line in paragraph.lines() {
            if let Some(name) = line.strip_prefix("struct ").and_then(|l| l.strip_suffix(" {")) {
                scope = format!("{name}::");
            } else if line.starts_with('}') {
                scope.clear();
            }
            let line = match declaration(line, &scope, &mut constants) {
                Some(names) => names,
                None => without_factor(&without(line, &root, &mut constants), &mut constants),
            };
            form.push_str(&line);
            form.push('\n');
        }
        form.push('\n');
    }
    Split { form, constants }
}

/// The source behind its header of comments.
fn body(source: &str) -> &str {
    let mut rest = source;
    while let Some((line, behind)) = rest.split_once('\n') {
        if !line.starts_with("//") {
            break;
        }
        rest = behind;
    }
    rest
}

/// Whether a paragraph is a function around one wgmma instruction.
fn is_instruction(paragraph: &str) -> bool {
    paragraph.contains("wgmma.mma_async") && paragraph.trim_start().starts_with("//")
}

/// `constexpr int A = 1, B = 2;  // note` without its values, which go to `constants`; `None` for a
/// line that is no such declaration, or whose values are computed from other constants.
fn declaration(line: &str, scope: &str, constants: &mut Constants) -> Option<String> {
    let code = line.split("  //").next().unwrap_or_default().trim();
    let code = code.strip_prefix("static ").unwrap_or(code);
    let (ty, rest) = code.strip_prefix("constexpr ")?.strip_suffix(';')?.split_once(' ')?;
    let parts: Vec<(&str, &str)> =
        rest.split(", ").map(|part| part.split_once(" = ")).collect::<Option<_>>()?;
    if !parts.iter().all(|(_, value)| is_literal(value)) {
        return None;
    }
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    for (name, value) in &parts {
        constants.insert(format!("{scope}{name}"), (*value).to_owned());
    }
    Some(format!("constexpr {ty} {};", names.join(", ")))
}

/// A number, `true` or `false`.
fn is_literal(value: &str) -> bool {
    let number = value.trim_start_matches('-');
    matches!(value, "true" | "false")
        || (number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'))
}

/// The line with [`INVERSE_ROOT`] in the place of that literal.
fn without(line: &str, root: &str, constants: &mut Constants) -> String {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(root) {
        let (before, behind) = (&rest[..at], &rest[at + root.len()..]);
        out.push_str(before);
        if is_word(before.chars().last()) || is_word(behind.chars().next()) {
            out.push_str(root);
        } else {
            out.push_str(INVERSE_ROOT);
            constants.insert(INVERSE_ROOT.to_owned(), root.to_owned());
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// The line without the literal behind [`FACTOR`].
fn without_factor(line: &str, constants: &mut Constants) -> String {
    let Some((before, behind)) = line.split_once(FACTOR) else { return line.to_owned() };
    let end = behind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    let (value, rest) = behind.split_at(end.unwrap_or(behind.len()));
    let known = constants.get(FACTOR.trim_end());
    if !is_literal(value) || known.is_some_and(|known| known != value) {
        return line.to_owned();
    }
    constants.insert(FACTOR.trim_end().to_owned(), value.to_owned());
    format!("{before}{FACTOR}{rest}")
}

/// An f32 as generated code writes it.
fn literal(x: f64) -> String {
    format!("{:?}f", x as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
// Title
//
// input 12

constexpr int D = 64;  // head dimension
constexpr bool FLAG = true;
constexpr int TWICE = 2 * D;

struct RowTile {
    static constexpr int POSITIONS = 32, HEADS = 4;
};

// c = a · b
void f() {
    asm volatile(\"wgmma.mma_async.sync.aligned.m64n64k16\");
}

float logit(float x) { return x * 0.125f + 10.125f; }
";

    #[test]
    fn constants_are_taken_out() {
        let found = split(SOURCE, 64);
        let expected =
            [("D", "64"), ("FLAG", "true"), ("RowTile::HEADS", "4"), ("RowTile::POSITIONS", "32")];
        let mut expected: Constants =
            expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect();
        expected.insert(INVERSE_ROOT.to_owned(), "0.125f".to_owned());
        assert_eq!(found.constants, expected);
        assert!(found.form.contains("constexpr int TWICE = 2 * D;"), "{}", found.form);
        assert!(found.form.contains("x * rsqrt(D) + 10.125f"), "{}", found.form);
        assert!(!found.form.contains("wgmma") && !found.form.contains("Title"), "{}", found.form);
    }

    #[test]
    fn the_factor_of_a_product_of_vectors_is_a_constant() {
        let line = "float logit(float x) { return dot_qk * 0.051f + x * 2.0f; }\n";
        let other = line.replace("0.051f", "0.072f");
        let (one, two) = (split(line, 128), split(&other, 64));
        assert_eq!(one.form, two.form);
        assert_eq!(two.constants.get("dot_qk *").map(String::as_str), Some("0.072f"));
        // A second one is no constant of that name.
        let both = format!("{line}{other}");
        assert!(split(&both, 128).form.contains("0.072f"));
    }

    #[test]
    fn other_values_are_the_same_variant_and_other_code_is_not() {
        let wider = SOURCE.replace("= 64", "= 128").replace("n64", "n128").replace("12\n", "13\n");
        let wider = wider.replace(" 0.125f", &format!(" {}", literal(1.0 / 128f64.sqrt())));
        assert_eq!(split(&wider, 128).form, split(SOURCE, 64).form);
        let other = SOURCE.replace("return x", "return -x");
        assert_ne!(split(&other, 64).form, split(SOURCE, 64).form);
        let other = SOURCE.replace("2 * D", "3 * D");
        assert_ne!(split(&other, 64).form, split(SOURCE, 64).form);
    }
}
