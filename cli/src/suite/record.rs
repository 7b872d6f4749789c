//! What one check gave, in memory and as JSON.

use super::Id;
use serde_json::{Value, json};
use sparsek_reference::rule::Measurement;

/// How a check ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// With these errors.
    Measured(Vec<Measurement>),
    /// The kernel does not fit the target, and the compiler said so with numbers.
    Refused(String),
    /// With an error of the call.
    Failed(String),
    /// With a fault, after which the process can no longer use the GPU.
    Fault(String),
}

/// One check that was run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// Its name.
    pub(super) id: Id,
    /// The case.
    pub(super) label: String,
    /// The program, where a seed made it and the check is not accepted.
    pub(super) program: Option<String>,
    /// Seconds from the start of the suite to its start.
    pub(super) start: f64,
    /// Seconds that it took.
    pub(super) seconds: f64,
    /// How it ended.
    pub(super) outcome: Outcome,
}

impl Record {
    /// Whether nothing is wrong.
    pub(super) fn accepted(&self) -> bool {
        match &self.outcome {
            Outcome::Measured(all) => all.iter().all(|m| m.ok),
            Outcome::Refused(_) => true,
            Outcome::Failed(_) | Outcome::Fault(_) => false,
        }
    }

    /// Measurements, where there are any.
    pub(super) fn measured(&self) -> &[Measurement] {
        match &self.outcome {
            Outcome::Measured(all) => all,
            Outcome::Refused(_) | Outcome::Failed(_) | Outcome::Fault(_) => &[],
        }
    }

    /// As an object; an error that is not finite is null.
    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "check": self.id.to_string(),
            "case": self.label,
            "accepted": self.accepted(),
            "start_s": self.start,
            "seconds": self.seconds,
        });
        if let Some(program) = &self.program {
            value["program"] = json!(program);
        }
        match &self.outcome {
            Outcome::Measured(all) => {
                let one = |m: &Measurement| json!({ "result": m.name, "error": m.error, "limit": m.limit, "ok": m.ok });
                value["measured"] = all.iter().map(one).collect();
            }
            Outcome::Refused(reason) => value["refused"] = json!(reason),
            Outcome::Failed(reason) => value["failed"] = json!(reason),
            Outcome::Fault(reason) => value["fault"] = json!(reason),
        }
        value
    }

    /// What [`Record::json`] wrote; `None` for anything else.
    pub(super) fn read(value: &Value) -> Option<Record> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let number = |value: &Value| value.as_f64().unwrap_or(f64::INFINITY);
        let outcome = if let Some(all) = value["measured"].as_array() {
            let one = |m: &Value| {
                let name = m["result"].as_str()?;
                Some(Measurement::new(name, number(&m["error"]), number(&m["limit"])))
            };
            Outcome::Measured(all.iter().map(one).collect::<Option<_>>()?)
        } else if let Some(reason) = text("refused") {
            Outcome::Refused(reason)
        } else if let Some(reason) = text("failed") {
            Outcome::Failed(reason)
        } else {
            Outcome::Fault(text("fault")?)
        };
        Some(Record {
            id: text("check")?.parse().ok()?,
            label: text("case")?,
            program: text("program"),
            start: value["start_s"].as_f64()?,
            seconds: value["seconds"].as_f64()?,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back() {
        let record = |outcome| Record {
            id: Id::Random(4),
            label: "a case".to_owned(),
            program: Some("kernel".to_owned()),
            start: 0.5,
            seconds: 1.25,
            outcome,
        };
        let measured = vec![Measurement::new("o", 1e-3, 2e-3), Measurement::new("d_q", 3.0, 2.0)];
        for outcome in [
            Outcome::Measured(measured),
            Outcome::Refused("a".to_owned()),
            Outcome::Failed("b".to_owned()),
            Outcome::Fault("c".to_owned()),
        ] {
            let record = record(outcome);
            assert_eq!(Record::read(&record.json()), Some(record));
        }
        let infinite = record(Outcome::Measured(vec![Measurement::new("o", f64::INFINITY, 1.0)]));
        assert_eq!(Record::read(&infinite.json()), Some(infinite));
        assert_eq!(Record::read(&json!({ "check": "random:4" })), None);
    }
}
