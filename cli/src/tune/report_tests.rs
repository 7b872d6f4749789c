use super::*;
use sparsek::Elem;
use sparsek::tuned::{Entry, Figures, Gpu, How, Key, Winner};
use sparsek_codegen::tune::{Ended, Measurement, Spread};
use sparsek_codegen::{Family, PassSchedule, Schedule};

/// What a search like one of the built-in kernel's leaves.
fn tuning() -> Tuning {
    let key = Key {
        program: "00".to_owned(),
        code: "1".to_owned(),
        elem: Elem::Bf16,
        d: 128,
        k: 512,
        w: 512,
        group: 4,
        given: Vec::new(),
        sequence: 65_536,
        gpu: Gpu::new("NVIDIA H200", (9, 0)),
    };
    let schedule = |stages| {
        let pass =
            PassSchedule { family: Family::Sm90, tile_q: 128, tile_kv: 64, warps: 12, stages };
        Schedule { chunk: 512, forward: pass, backward: pass }
    };
    let mut measurements = Vec::new();
    for (axis, base) in [(Axis::Forward, 2.4), (Axis::Backward, 9.4), (Axis::Chunk, 11.8)] {
        for n in 0..24u32 {
            let ms = base * (1.0 + f64::from(n * 7 % 24) / 20.0);
            let spread = Spread { count: 10, median: ms, least: ms, most: ms };
            let outcome = match n % 8 {
                5 => Outcome::Wrong { tensor: "o".to_owned(), error: None, limit: 0.03 },
                n if n > 2 => Outcome::Stopped(spread),
                _ => Outcome::Measured(spread),
            };
            measurements.push(Measurement {
                axis,
                schedule: schedule(n),
                predicted_ms: ms,
                outcome,
            });
        }
    }
    let figures = Figures {
        batch: 1,
        n: 65_536,
        heads: 32,
        kv_heads: 8,
        scores: "sd:1".to_owned(),
        plan_ms: 0.25,
        forward_ms: 2.4,
        backward_ms: 9.4,
        driver: "13.0".to_owned(),
        date: "2026-11-24T00:00:00Z".to_owned(),
    };
    Tuning {
        title: "SparsekValue: a < b".to_owned(),
        winner: Some(Winner::new(&key, schedule(0), How::Full, figures)),
        entry: Entry::new("SparsekValue", key),
        measurements,
        model: None,
        shipped: None,
        ended: Ended::Complete,
        level: Level::Full,
        was_settled: false,
        restarts: 0,
        copy: Some(4.27e12),
        pairs: 65_536.0 * 32.0 * 1024.0,
        d: 128,
        least_bytes: (1.4e9, 2.8e9),
    }
}

#[test]
fn every_candidate_is_drawn() {
    let text = svg(&[tuning()], 784e12, 4.27e12).unwrap();
    assert!(text.contains("a &lt; b") && text.contains("784 TFLOP/s"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    // Timed ones in the first panel, forwards and backwards in the second; crosses of 9 wrong ones.
    assert!(text.matches("<circle").count() >= 3 * 21 + 2 * 21, "{text}");
    assert_eq!(text.matches("l6 6m0 -6l-6 6").count(), 9);
    assert!(!text.contains("baseline"), "{text}");
    let baseline = svg(&[Tuning { level: Level::Baseline, ..tuning() }], 784e12, 4.27e12).unwrap();
    assert!(baseline.contains("baseline: what the cost model chooses"), "{baseline}");
    // Nothing measured is no reason to fail.
    let nothing = Tuning { measurements: Vec::new(), winner: None, ..tuning() };
    let text = svg(&[nothing], 784e12, 4.27e12).unwrap();
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    assert!(svg(&[], 1.0, 1.0).unwrap().ends_with("</svg>\n"));
}
