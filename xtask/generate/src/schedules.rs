//! Which schedule a point has: one that was measured, or the model's choice.

use serde_json::{Value, json};
use sparsek::tuned::{Gpu, Key, Manifest, Record};
use sparsek_codegen::{Problem, Schedule, Target};

/// Positions of a sequence for which code is kept; others have code that differs by constants.
pub(crate) const SEQUENCE: u64 = 65_536;

/// The GPUs on which a target's schedules may have been measured, the first one wins.
fn gpus(target: &Target) -> Vec<Gpu> {
    match target.capability {
        90 => vec![Gpu::new("NVIDIA H200", (9, 0))],
        _ => Vec::new(),
    }
}

/// The schedules that the built-in kernels carry.
#[derive(Debug, Default)]
pub(crate) struct Tuned {
    manifest: Manifest,
}

/// A schedule and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) schedule: Schedule,
    /// `None`: the model's choice.
    pub(crate) record: Option<Record>,
}

impl Tuned {
    /// Reads the text of a manifest.
    pub(crate) fn read(text: &str) -> Result<Tuned, String> {
        Ok(Tuned { manifest: Manifest::from_json(text).map_err(|e| e.to_string())? })
    }

    /// What was measured for the problem on a GPU of the target: for [`SEQUENCE`], else for the longest
    /// sequences.
    pub(crate) fn record(&self, problem: &Problem<'_>, target: &Target) -> Option<&Record> {
        gpus(target).into_iter().find_map(|gpu| {
            let key = Key::new(problem, SEQUENCE, gpu);
            let alike = |r: &&Record| Key { sequence: key.sequence, ..r.key.clone() } == key;
            let measured = self.manifest.records().filter(|r| r.figures.is_some());
            measured.filter(alike).max_by_key(|r| (r.key.sequence == key.sequence, r.key.sequence))
        })
    }

    /// Records that were measured with other code than what is generated now: they are of no effect.
    pub(crate) fn outdated(&self) -> usize {
        let version = sparsek_codegen::version();
        self.manifest.records().filter(|r| r.key.code != version).count()
    }
}

impl Chosen {
    /// For the manifest.
    pub(crate) fn json(&self) -> Value {
        let Schedule { chunk, forward, backward } = self.schedule;
        let (forward, backward) = (forward.to_string(), backward.to_string());
        let mut out = json!({
            "from": "model",
            "chunk": chunk,
            "forward": forward,
            "backward": backward,
        });
        if let Some(record) = &self.record {
            if record.how.is_searched() {
                out["from"] = json!("tuned");
            }
            out["id"] = json!(record.id());
            out["how"] = json!(record.how);
            out["gpu"] = json!(record.key.gpu.name);
            out["measured"] = json!(record.figures);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsek::tuned::{Figures, How};
    use sparsek::{Elem, Kernel, Spec};
    use sparsek_codegen::Given;

    sparsek::sparsek_kernel! {
        kernel Plain<D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
            q: Query<bf16, D>, k: Key<bf16, D>, v: Value<bf16, D>, u: PerKey,
        ) -> Output<bf16, D> {
            let gate = sparsek(u, K);
            let p = softmax(dot(q, k) * rsqrt(D), causal & (topk(gate) | window(W)));
            dot(p * gate, v)
        }
    }

    fn problem(kernel: &Kernel, group: u32) -> Problem<'_> {
        let given = ["q", "k", "v", "u"];
        let given = given.map(|name| Given { name: name.to_owned(), per_head: false }).to_vec();
        let (instance, backward) = (kernel.instance(), kernel.backward_program());
        Problem { instance, backward, group, given }
    }

    #[test]
    fn what_was_measured_goes_before_the_model() {
        let h200 = Target::named("sm_90a").unwrap();
        let kernel = Plain::new(Spec::new(Elem::Bf16, 64).k(128).w(256)).unwrap();
        let kernel = kernel.kernel();
        let code = kernel.code(&sparsek::cuda::CallShape::group(4), h200).unwrap();
        let record = |n: u64, gpu: &str, chunk: u32| Record {
            kernel: "Plain".to_owned(),
            key: Key::new(&problem(kernel, 4), n, Gpu::new(gpu, (9, 0))),
            schedule: Schedule { chunk, ..code.schedule() },
            how: How::Full,
            figures: Some(Figures {
                batch: 1,
                n,
                heads: 32,
                kv_heads: 8,
                scores: "sd:1".to_owned(),
                plan_ms: 0.25,
                forward_ms: 2.5,
                backward_ms: 6.5,
                driver: "13.0".to_owned(),
                date: "2026-11-24T12:00:00Z".to_owned(),
            }),
        };
        let chosen = |records: Vec<Record>, group: u32, target: &Target| {
            let tuned = Tuned::read(&Manifest::new(records).to_json()).unwrap();
            tuned.record(&problem(kernel, group), target).map(|r| r.schedule.chunk)
        };
        let gpu = "NVIDIA H200";
        let three =
            || vec![record(1024, gpu, 128), record(SEQUENCE, gpu, 256), record(1 << 20, gpu, 1024)];
        assert_eq!(chosen(three(), 4, &h200), Some(256));
        // Without that length the longest one.
        assert_eq!(
            chosen(vec![record(1024, gpu, 128), record(4096, gpu, 256)], 4, &h200),
            Some(256)
        );
        // Of other calls, GPUs and code there is none.
        assert_eq!(chosen(three(), 2, &h200), None);
        assert_eq!(chosen(three(), 4, &Target::named("sm_80").unwrap()), None);
        assert_eq!(chosen(vec![record(SEQUENCE, "Other", 256)], 4, &h200), None);
        let mut old = record(SEQUENCE, gpu, 256);
        old.key.code = "0".to_owned();
        assert_eq!(chosen(vec![old.clone()], 4, &h200), None);
        let tuned = Tuned::read(&Manifest::new([old]).to_json()).unwrap();
        assert_eq!(tuned.outdated(), 1);

        let record = record(SEQUENCE, gpu, 256);
        let shown = Chosen { schedule: record.schedule, record: Some(record.clone()) }.json();
        assert_eq!((&shown["from"], &shown["gpu"]), (&json!("tuned"), &json!(gpu)));
        assert_eq!(shown["id"], json!(record.id()));
        assert_eq!(shown["measured"]["forward_ms"], json!(2.5));
        // The model's choice that was measured alone is still the model's.
        let alone = Record { how: How::Baseline, ..record.clone() };
        let shown = Chosen { schedule: record.schedule, record: Some(alone) }.json();
        assert_eq!((&shown["from"], &shown["how"]), (&json!("model"), &json!("baseline")));
        assert_eq!(shown["measured"]["forward_ms"], json!(2.5));
        let shown = Chosen { schedule: record.schedule, record: None }.json();
        assert_eq!((&shown["from"], shown.get("measured")), (&json!("model"), None));
    }
}
