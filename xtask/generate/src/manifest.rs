//! `manifest.json`: which file, constants and schedule each instance has.

use crate::constants::Constants;
use crate::grid::{ELEM, Emitted, GROUP, Kernel};
use crate::schedules::SEQUENCE;
use crate::variants::{Member, Variants};
use serde_json::{Value, json};

/// An object with its fields in the order in which they are read best.
type Fields = Vec<(&'static str, Value)>;

/// The manifest's text: one line for each file and for each instance.
pub(crate) fn text(kernels: &[Kernel], emitted: &[Emitted], found: &Variants) -> String {
    let about = "written by `cargo xtask generate`; README.md says how to read it";
    let mut out = String::from("{\n");
    for (name, value) in [
        ("about", json!(about)),
        ("version", json!(sparsek_codegen::version())),
        ("elem", json!(ELEM.name())),
        ("group", json!(GROUP)),
        ("sequence", json!(SEQUENCE)),
    ] {
        out.push_str(&format!("  \"{name}\": {value},\n"));
    }
    out.push_str(&list("files", &files(kernels, emitted, found)));
    out.push_str(",\n");
    out.push_str(&list("instances", &instances(kernels, emitted, found)));
    out.push_str("\n}\n");
    out
}

fn list(name: &str, rows: &[String]) -> String {
    format!("  \"{name}\": [\n    {}\n  ]", rows.join(",\n    "))
}

fn object(fields: &Fields) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn point(kernels: &[Kernel], e: &Emitted) -> Fields {
    let p = &e.point;
    vec![
        ("kernel", json!(kernels[p.kernel].name)),
        ("d", json!(p.d)),
        ("k", json!(p.k)),
        ("w", json!(p.w)),
        ("arch", json!(p.target.name())),
    ]
}

fn files(kernels: &[Kernel], emitted: &[Emitted], found: &Variants) -> Vec<String> {
    let mut sorted: Vec<_> = found.variants.iter().collect();
    sorted.sort_by(|a, b| a.file.cmp(&b.file));
    let row = |variant: &&crate::variants::Variant| {
        let mut row = vec![("file", json!(variant.file)), ("module", json!(variant.module.name()))];
        row.extend(point(kernels, &emitted[variant.shown]));
        row.push(("schedule", emitted[variant.shown].chosen.json()));
        row.push(("instances", json!(variant.instances)));
        row.push(("constants", values(&variant.constants)));
        object(&row)
    };
    sorted.iter().map(row).collect()
}

fn instances(kernels: &[Kernel], emitted: &[Emitted], found: &Variants) -> Vec<String> {
    let row = |(e, members): (&Emitted, &Vec<Member>)| {
        let differing: Vec<Constants> = members
            .iter()
            .map(|m| but(&m.constants, &found.variants[m.variant].constants))
            .collect();
        let shared = shared(&differing, members);
        let mut row = point(kernels, e);
        row.push(("schedule", e.chosen.json()));
        row.push(("constants", values(&shared)));
        for (member, differing) in members.iter().zip(differing) {
            let variant = &found.variants[member.variant];
            let own =
                differing.into_iter().filter(|(name, _)| !shared.contains_key(name)).collect();
            let mut value =
                json!({ "file": variant.file, "source": member.hash, "code": member.code });
            if !Constants::is_empty(&own) {
                value["constants"] = values(&own);
            }
            row.push((variant.module.name(), value));
        }
        object(&row)
    };
    emitted.iter().zip(&found.members).map(row).collect()
}

/// The constants that have another value than in the file.
fn but(own: &Constants, shown: &Constants) -> Constants {
    let differs = own.iter().filter(|(name, value)| shown.get(*name) != Some(value));
    differs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Those that have one value in every module of the instance.
fn shared(differing: &[Constants], members: &[Member]) -> Constants {
    let alike = |name: &String, value: &String| {
        members.iter().all(|m| m.constants.get(name).is_none_or(|other| other == value))
    };
    let all = differing.iter().flatten().filter(|(name, value)| alike(name, value));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Integers and flags as such, floats as they are written.
fn values(constants: &Constants) -> Value {
    let value = |text: &String| match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => json!(number),
        (_, Ok(flag)) => json!(flag),
        _ => json!(text),
    };
    constants.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants(all: &[(&str, &str)]) -> Constants {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn constants_that_modules_share_are_given_once() {
        let member = |all: &[(&str, &str)]| Member {
            variant: 0,
            hash: String::new(),
            code: String::new(),
            constants: constants(all),
        };
        let members = [
            member(&[("K", "8"), ("WARPS", "4"), ("D", "64")]),
            member(&[("K", "8"), ("WARPS", "2"), ("D", "64")]),
        ];
        let shown = constants(&[("K", "16"), ("WARPS", "2"), ("D", "64")]);
        let differing: Vec<Constants> = members.iter().map(|m| but(&m.constants, &shown)).collect();
        assert_eq!(differing[0], constants(&[("K", "8"), ("WARPS", "4")]));
        // Both modules have WARPS, with two values: it stays with the one that differs.
        assert_eq!(shared(&differing, &members), constants(&[("K", "8")]));
    }

    #[test]
    fn values_are_numbers_where_they_can_be() {
        let found = values(&constants(&[("A", "12"), ("B", "true"), ("C", "0.125f")]));
        assert_eq!(found, json!({ "A": 12, "B": true, "C": "0.125f" }));
    }
}
