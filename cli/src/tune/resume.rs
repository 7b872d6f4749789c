//! What a search need not measure again, because the store knows it.

use super::{Case, Settings, Tuned};
use crate::terminal::note;
use sparsek::tuned::{Entry, Figures, How, Kept, Key};
use sparsek_codegen::tune::{Level, Measurement, Outcome};

/// What the store knows of calls of the same sizes under the same driver.
pub(super) fn known(
    case: &Case,
    key: &Key,
    gpu: &Tuned,
    settings: &Settings<'_>,
) -> Vec<Measurement> {
    if !settings.resume {
        return Vec::new();
    }
    let entry = match settings.store.get(key) {
        Ok(Some(entry)) => entry,
        Ok(None) => return Vec::new(),
        Err(broken) => {
            note(broken);
            return Vec::new();
        }
    };
    let sizes = (case.batch as u64, case.n as u64, case.hkv as u64);
    // What failed may have failed for want of room or by another's fault: it is tried again.
    let tells = |outcome: &Outcome| {
        matches!(outcome, Outcome::Measured(_) | Outcome::Stopped(_) | Outcome::Wrong { .. })
    };
    let same = |kept: &&Kept| {
        (kept.batch, kept.n, kept.kv_heads) == sizes
            && kept.driver == gpu.driver
            && kept.scores == settings.scores
            && tells(&kept.measurement.outcome)
    };
    entry.measurements.iter().filter(same).map(|kept| kept.measurement.clone()).collect()
}

/// What the store has of a key that a resumed baseline leaves as it is: figures of calls of the same sizes and
/// scores under the same driver, of the schedule that the cost model chooses now or of one that a search found,
/// which a baseline would not replace.
pub(super) fn settled(case: &Case, gpu: &Tuned, settings: &Settings<'_>) -> Option<Entry> {
    if !settings.resume || settings.level != Level::Baseline {
        return None;
    }
    let entry = settings.store.get(&case.key(gpu.gpu())).ok().flatten()?;
    let winner = entry.winner.as_ref()?;
    let Figures { batch, n, heads, kv_heads, scores, driver, .. } = &winner.figures;
    let sizes = [case.batch, case.n, case.hq, case.hkv].map(|size| size as u64);
    let same = [*batch, *n, *heads, *kv_heads] == sizes
        && *scores == settings.scores
        && *driver == gpu.driver;
    let current = match winner.how {
        How::Quick | How::Full => true,
        How::Baseline | How::Model => {
            case.space(&gpu.target, &gpu.machine()).is_ok_and(|s| s.first() == winner.schedule)
        }
    };
    (same && current).then_some(entry)
}
