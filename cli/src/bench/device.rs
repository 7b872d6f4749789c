//! Times on a GPU, by events on its stream.

use super::sets::{Set, driver, failed, least_bytes, mark, sets_that_take_turns};
use super::{Row, Settings, Spread, data};
use crate::commands::failure;
use crate::cuda_inputs;
use crate::failure::Failure;
use crate::schedule::{self, Change};
use crate::terminal::note;
use crate::work::{self, Work};
use cudarc::driver::CudaEvent;
use sparsek::dsl::ir::Instance;
use sparsek::{Kernel, cuda};
use sparsek_codegen::Schedule;
use std::collections::BTreeMap;

/// Bytes of one copy when the rate of copies is measured.
const COPIED: usize = 1 << 30;

/// Calls whose launches are timed one by one.
const PROFILED: usize = 5;

/// A kernel on a GPU, compiled with every schedule that is timed.
pub(crate) struct Bench<'a> {
    device: &'a cuda::Device,
    instance: &'a Instance,
    kernel: cuda::Kernel,
    settings: &'a Settings,
    /// What was changed, and the schedule; that of calls which say none, where nothing was changed.
    schedules: Vec<(String, Option<Schedule>)>,
}

impl<'a> Bench<'a> {
    /// Chooses and compiles. A changed schedule that does not fit is a note, as long as another
    /// one is left.
    pub(crate) fn new(
        device: &'a cuda::Device,
        kernel: &'a Kernel,
        settings: &'a Settings,
    ) -> Result<Bench<'a>, Failure> {
        let instance = kernel.instance();
        let group = u32::try_from(settings.hq / settings.hkv).unwrap_or(u32::MAX);
        let problem = schedule::problem(kernel, group, |input| input.default.is_none());
        let chosen = Change::default();
        let changes = match settings.changes.as_slice() {
            [] => std::slice::from_ref(&chosen),
            changes => changes,
        };
        let target = device.target();
        let mut wanted = Vec::new();
        for change in changes {
            let changed = match *change == Change::default() {
                true => None,
                false => Some(schedule::choose(&problem, &target, Some(change))?),
            };
            wanted.push((change.to_string(), changed));
        }
        let on_gpu = kernel.cuda(device);
        // What is compiled depends on the heads and not on the length.
        let small = data::Sizes { batch: 1, n: 16, ..settings.sizes(16) };
        let shapes = cuda_inputs::shapes(&data::inputs(instance, &small, data::Scores::Equal, 1));
        let compile = |schedule: Option<Schedule>| -> Result<(), sparsek::Error> {
            // That of calls depends on their length: it is compiled by the first of them.
            let Some(schedule) = schedule else { return Ok(()) };
            let prepared = on_gpu.prepare(&shapes, None, Some(schedule))?;
            if settings.backward {
                prepared.backward(None, None)?;
            }
            Ok(())
        };
        let compiled: Vec<Result<(), sparsek::Error>> = std::thread::scope(|scope| {
            let compile = &compile;
            let running: Vec<_> =
                wanted.iter().map(|(_, s)| scope.spawn(move || compile(*s))).collect();
            let joined = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        });
        let mut schedules = Vec::new();
        let mut refused = None;
        for ((change, schedule), compiled) in wanted.into_iter().zip(compiled) {
            match compiled {
                Ok(()) => schedules.push((change, schedule)),
                Err(e) => {
                    if changes.len() > 1 {
                        note(format_args!("`{change}` is left out: {e}"));
                    }
                    refused = Some(e);
                }
            }
        }
        match refused {
            Some(e) if schedules.is_empty() => Err(failed(e)),
            _ => Ok(Bench { device, instance, kernel: on_gpu, settings, schedules }),
        }
    }

    /// Times of one sequence length, for each kind of scores and each schedule.
    pub(crate) fn rows(&self, n: usize) -> Result<Vec<Row>, Failure> {
        let Bench { device, instance, settings, .. } = self;
        let sizes = settings.sizes(n);
        let bytes = least_bytes(&sizes, instance);
        let count = sets_that_take_turns(bytes.0);
        let mut sets: Vec<Set> = Vec::with_capacity(count);
        let mut rows = Vec::new();
        for (at, scores) in settings.scores.iter().enumerate() {
            for seed in 0..count {
                if at == 0 {
                    let loaded = data::inputs(instance, &sizes, *scores, seed as u64 + 1);
                    let set = Set::upload(device, &loaded, settings.backward);
                    sets.push(set.map_err(failed)?);
                } else {
                    let tensor = data::only_scores(instance, &sizes, *scores, seed as u64 + 1);
                    let Some((name, tensor)) = tensor else { continue };
                    sets[seed].replace(device, &name, &tensor).map_err(failed)?;
                }
            }
            for (change, schedule) in &self.schedules {
                rows.push(self.row(&sizes, &sets, *scores, change, *schedule)?);
            }
        }
        Ok(rows)
    }

    fn call(&self, set: &Set, options: &cuda::Options) -> Result<cuda::Forward, sparsek::Error> {
        let inputs = set.inputs();
        let forward = self.kernel.forward(&inputs, options)?;
        if let Some(d_o) = &set.d_o {
            self.kernel.backward(&inputs, &forward, &d_o.view(), options)?;
        }
        Ok(forward)
    }

    fn row(
        &self,
        sizes: &data::Sizes,
        sets: &[Set],
        scores: data::Scores,
        change: &str,
        schedule: Option<Schedule>,
    ) -> Result<Row, Failure> {
        let options = cuda::Options { schedule, ..cuda::Options::default() };
        let Some(first) = sets.first() else { return Err(Failure::new("there are no inputs")) };
        let call = self.call(first, &options).map_err(failed)?;
        let source = call.schedule_source().to_string();
        let in_words = format!("{}; {source}", call.schedule().to_string().replace('\n', "; "));
        let expiry = call.expiry().download();
        drop(call);
        let pairs = work::seen_pairs(&expiry.map_err(failed)?, self.instance.sinks, None);
        let [forwards, backwards] = match self.settings.apart {
            true => self.apart(sets, &options)?,
            false => self.in_turns(sets, &options)?,
        };
        let (plan, launches) = self.profile(sets, schedule)?;
        let positions = (sizes.batch * sizes.hkv * sizes.n).max(1);
        Ok(Row {
            n: sizes.n,
            scores: scores.to_string(),
            change: change.to_owned(),
            schedule: in_words,
            seen: pairs as f64 / positions as f64,
            work: Work::new(pairs, sizes.hq / sizes.hkv, self.instance.d),
            bytes: least_bytes(sizes, self.instance),
            plan: Spread::of(plan),
            forward: Spread::of(forwards).ok_or_else(|| Failure::new("nothing was repeated"))?,
            backward: Spread::of(backwards),
            launches,
        })
    }

    /// Milliseconds of each forward and backward, in turns as in a training step. Nothing waits in between: a
    /// wait would also return pooled memory to the driver, and taking it again would be timed.
    fn in_turns(&self, sets: &[Set], options: &cuda::Options) -> Result<[Vec<f64>; 2], Failure> {
        let Bench { device, kernel, settings, .. } = self;
        let warmup = settings.warmup.max(1);
        let mut events = Vec::with_capacity(warmup + settings.iterations);
        for set in sets.iter().cycle().take(warmup + settings.iterations) {
            let start = mark(device)?;
            let forward = kernel.forward(&set.inputs(), options).map_err(failed)?;
            let between = mark(device)?;
            let end = match &set.d_o {
                Some(_) => {
                    self.backward(set, &forward, options)?;
                    Some(mark(device)?)
                }
                None => None,
            };
            events.push((start, between, end));
        }
        device.synchronize().map_err(failed)?;
        let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
        for (start, between, end) in &events[warmup..] {
            forwards.push(milliseconds(start, between)?);
            if let Some(end) = end {
                backwards.push(milliseconds(between, end)?);
            }
        }
        Ok([forwards, backwards])
    }

    /// The same of forwards one after another, and then of backwards.
    fn apart(&self, sets: &[Set], options: &cuda::Options) -> Result<[Vec<f64>; 2], Failure> {
        let mut one = |set: &Set| {
            self.kernel.forward(&set.inputs(), options).map_err(failed)?;
            Ok(())
        };
        let forwards = self.one_after_another(sets, &mut one)?;
        if sets.iter().any(|set| set.d_o.is_none()) {
            return Ok([forwards, Vec::new()]);
        }
        let forward = |set: &Set| self.kernel.forward(&set.inputs(), options).map_err(failed);
        let done = sets.iter().map(forward).collect::<Result<Vec<_>, _>>()?;
        let mut at = 0;
        let mut one = |set: &Set| {
            at += 1;
            self.backward(set, &done[(at - 1) % done.len()], options)
        };
        Ok([forwards, self.one_after_another(sets, &mut one)?])
    }

    fn one_after_another(
        &self,
        sets: &[Set],
        one: &mut dyn FnMut(&Set) -> Result<(), Failure>,
    ) -> Result<Vec<f64>, Failure> {
        let warmup = self.settings.warmup.max(1);
        let mut marks = Vec::with_capacity(warmup + self.settings.iterations + 1);
        for set in sets.iter().cycle().take(warmup + self.settings.iterations) {
            marks.push(mark(self.device)?);
            one(set)?;
        }
        marks.push(mark(self.device)?);
        self.device.synchronize().map_err(failed)?;
        marks[warmup..].windows(2).map(|pair| milliseconds(&pair[0], &pair[1])).collect()
    }

    fn backward(
        &self,
        set: &Set,
        forward: &cuda::Forward,
        options: &cuda::Options,
    ) -> Result<(), Failure> {
        let d_o = set.d_o.as_ref().ok_or_else(|| Failure::new("there is no d_o"))?;
        self.kernel.backward(&set.inputs(), forward, &d_o.view(), options).map_err(failed)?;
        Ok(())
    }

    /// Milliseconds of the plan's launches together in each profiled call, and the median of every launch.
    #[allow(clippy::type_complexity, reason = "two columns of one table")]
    fn profile(
        &self,
        sets: &[Set],
        schedule: Option<Schedule>,
    ) -> Result<(Vec<f64>, Vec<(String, String, f64)>), Failure> {
        let mut plans = Vec::new();
        let mut entries: BTreeMap<usize, (String, String, Vec<f64>)> = BTreeMap::new();
        let timings = |set: &Set, profile: cuda::Profile| {
            let options =
                cuda::Options { schedule, profile: Some(&profile), ..cuda::Options::default() };
            self.call(set, &options).map_err(failed)?;
            profile.take().map_err(failed)
        };
        for set in sets.iter().cycle().take(PROFILED) {
            let modules = timings(set, cuda::Profile::of_modules())?;
            let plan = modules.iter().find(|t| t.module == cuda::Module::Plan);
            plans.extend(plan.map(|t| f64::from(t.ms)));
            for (at, timing) in timings(set, cuda::Profile::new())?.iter().enumerate() {
                let named = || (timing.module.name().to_owned(), timing.entry.clone(), Vec::new());
                entries.entry(at).or_insert_with(named).2.push(f64::from(timing.ms));
            }
        }
        let launches = entries
            .into_values()
            .filter_map(|(module, entry, times)| Some((module, entry, Spread::of(times)?.median)));
        Ok((plans, launches.collect()))
    }
}

fn milliseconds(from: &CudaEvent, to: &CudaEvent) -> Result<f64, Failure> {
    Ok(f64::from(from.elapsed_ms(to).map_err(driver)?))
}

/// Bytes a second of a copy within the device's memory, reads and writes counted.
pub(crate) fn copy_rate(device: &cuda::Device) -> Result<f64, Failure> {
    let stream = device.stream();
    let (free, _) = device.memory().map_err(|e| failure(e, None))?;
    let bytes = COPIED.min(free / 4);
    let source = stream.alloc_zeros::<u8>(bytes).map_err(driver)?;
    let mut target = stream.alloc_zeros::<u8>(bytes).map_err(driver)?;
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = mark(device)?;
        stream.memcpy_dtod(&source, &mut target).map_err(driver)?;
        let end = mark(device)?;
        times.push(f64::from(start.elapsed_ms(&end).map_err(driver)?));
    }
    let spread = Spread::of(times).ok_or_else(|| Failure::new("nothing was copied"))?;
    Ok(2.0 * bytes as f64 / (spread.median / 1e3))
}
