//! Random cases of a kernel, and what is measured on one.

use crate::backend::Backend;
use crate::commands::failure;
use crate::failure::Failure;
use crate::tensors::file::HostTensor;
use crate::tensors::inputs::{Flags, Loaded};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sparsek::dsl::ir::{Extent, ParamId, Program, Spec};
use sparsek::{Elem, Kernel, Tensor};
use sparsek_dsl::parse;
use sparsek_reference::generate::{self, Scores, Shape};
use sparsek_reference::rule::Measurement;
use sparsek_reference::{Array, Arrays, Expected};
use std::collections::HashMap;

/// Query-key pairs that the references may be asked for.
const MOST_PAIRS: usize = 1 << 23;

/// One problem.
pub(crate) struct Case {
    /// What it is, for tables.
    pub(crate) label: String,
    /// The kernel.
    pub(crate) kernel: Kernel,
    /// Its inputs, `d_o` among them.
    pub(crate) loaded: Loaded,
    /// Whether a GPU gets its inputs head by head instead of position by position.
    pub(crate) strided: bool,
}

/// Sizes of a case and what its scores are like.
pub(crate) struct Geometry {
    /// Sizes.
    pub(crate) shape: Shape,
    /// Boundaries of packed sequences.
    pub(crate) cu_seqlens: Option<Vec<i32>>,
    /// Scores.
    pub(crate) scores: Scores,
}

/// A random case of a kernel, flags kept.
pub(crate) fn of_program(program: &Program, flags: &Flags, seed: u64) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = rng.random_range(1..=96usize);
    let spec = random_spec(program, flags, n, &mut rng);
    with_geometry(program, &spec, n, seed, &mut rng)
}

/// A random program of the language, printed and read back.
pub(crate) fn of_random_program(seed: u64) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = rng.random_range(2..=64usize);
    let generated = generate::random(seed, n);
    let program = reread(&generated.program)?;
    with_geometry(&program, &generated.spec, n, seed, &mut rng)
}

/// A program printed and read back.
pub(crate) fn reread(program: &Program) -> Result<Program, Failure> {
    let text = program.to_string();
    let compiled = parse::compile_file(&text);
    let read = compiled.kernels.into_iter().next().and_then(|k| k.program);
    read.ok_or_else(|| Failure::new(format_args!("a generated program does not compile:\n{text}")))
}

fn random_spec(program: &Program, flags: &Flags, n: usize, rng: &mut StdRng) -> Spec {
    let set = &program.elem.set;
    let elem = flags.elem.or_else(|| set.get(rng.random_range(0..set.len().max(1))).copied());
    let n = n as i64;
    let gate = program.gate().map(|g| g.k);
    let window = program.seen_set().window;
    // A parameter in two roles has one value.
    let mut known: HashMap<ParamId, i64> = HashMap::new();
    for (extent, flag) in [(gate, flags.k), (window, flags.window)] {
        if let (Some(Extent::Param(id)), Some(value)) = (extent, flag) {
            known.insert(id, value);
        }
    }
    for (i, param) in program.params.iter().enumerate() {
        known.extend(flags.set.get(&param.name).map(|value| (ParamId(i as u32), *value)));
    }
    let mut choose = |extent: Option<Extent>, flag: Option<i64>, most: i64| match extent {
        Some(Extent::Param(id)) if flag.is_none() => {
            if !known.contains_key(&id) {
                let param = program.params.get(id.0 as usize);
                let value = param.and_then(|p| p.set.nearest(rng.random_range(0..=most)));
                known.extend(value.map(|value| (id, value)));
            }
            known.get(&id).copied()
        }
        _ => flag,
    };
    let literal = program.head_dim.literal().map(i64::from);
    let d = choose(Some(program.head_dim), None, 64).or(literal);
    let mut spec = Spec::new(elem.unwrap_or(Elem::F32), d.unwrap_or(16));
    spec.k = choose(gate, flags.k, n / 3 + 1);
    spec.w = choose(window, flags.window, n / 3);
    spec.set = flags.set.clone();
    for (i, param) in program.params.iter().enumerate() {
        let is = |e: Option<Extent>| matches!(e, Some(Extent::Param(id)) if id.0 as usize == i);
        let in_a_role = is(Some(program.head_dim)) || is(gate) || is(window);
        if !in_a_role && !spec.set.contains_key(&param.name) {
            let value = param.set.nearest(rng.random_range(0..=4));
            spec.set.extend(value.map(|v| (param.name.clone(), v)));
        }
    }
    spec
}

fn with_geometry(
    program: &Program,
    spec: &Spec,
    n: usize,
    seed: u64,
    rng: &mut StdRng,
) -> Result<Case, Failure> {
    let (hq, hkv) = [(1, 1), (2, 2), (4, 2), (8, 1), (6, 3)][rng.random_range(0..5)];
    let packed = rng.random_range(0..4) == 0;
    let batch = if packed { 1 } else { rng.random_range(1..=2) };
    let cu_seqlens = packed.then(|| {
        let cut = rng.random_range(0..=n) as i32;
        vec![0, cut, n as i32]
    });
    let mut kinds: Vec<Scores> = Scores::ALL.to_vec();
    if !generate::score_is_input(program) {
        kinds.retain(|s| s.suits_expressions());
    }
    let scores = kinds[rng.random_range(0..kinds.len())];
    let shape = Shape { batch, n, hq, hkv };
    build(program, spec, &Geometry { shape, cu_seqlens, scores }, seed)
}

/// The case of a kernel with those sizes; its numbers come from the seed.
pub(crate) fn build(
    program: &Program,
    spec: &Spec,
    geometry: &Geometry,
    seed: u64,
) -> Result<Case, Failure> {
    let kernel = Kernel::from_program(program, spec).map_err(|e| failure(e, None))?;
    let Geometry { shape, cu_seqlens, scores } = geometry;
    let instance = kernel.instance();
    let arrays = generate::inputs(seed, &instance.program, shape, *scores).map_err(Failure::new)?;
    let Shape { batch, n, hq, hkv } = shape;
    let label = format!(
        "seed {seed}: {}, {}, D {}, k {}, window {}, sinks {}, [{batch}, {n}, {hq}/{hkv}]{}, {scores:?} scores",
        program.name,
        instance.elem,
        instance.d,
        instance.k,
        instance.w,
        instance.sinks,
        match cu_seqlens {
            Some(bounds) => format!(" packed {bounds:?}"),
            None => String::new(),
        }
    );
    let loaded = Loaded::from_arrays(&instance.program, instance.elem, &arrays, cu_seqlens.clone());
    Ok(Case { label, kernel, loaded, strided: false })
}

/// A random gradient of the output, for inputs that come without one.
pub(crate) fn random_adjoint(
    loaded: &Loaded,
    elem: Elem,
    seed: u64,
) -> Result<HostTensor, Failure> {
    let q = loaded.get("q").ok_or_else(|| Failure::new("the input has no tensor `q`"))?;
    Ok(HostTensor::from_array(&generate::normals(seed, &q.shape), Some(elem)))
}

impl Case {
    /// What results are held against. Rows of `d_o` at kinks of the mask are zeroed first.
    pub(crate) fn expected(&mut self) -> Result<Expected, Failure> {
        let mut inputs = self.loaded.arrays().map_err(Failure::new)?;
        if let Some(&[b, n, h, _]) = inputs.get("q").map(Array::shape)
            && b.saturating_mul(h).saturating_mul(n).saturating_mul(n) > MOST_PAIRS
        {
            return Err(Failure::new("the sequence is too long for the reference")
                .help("the reference takes O(N²) time and memory: give a shorter sequence"));
        }
        let instance = self.kernel.instance();
        let backward = self.kernel.backward_program();
        let cu_seqlens = self.loaded.cu_seqlens.clone();
        let expected = Expected::new(
            &instance.program,
            backward,
            &mut inputs,
            instance.elem,
            cu_seqlens.as_deref(),
        )
        .map_err(Failure::new)?;
        self.loaded = Loaded::from_arrays(&instance.program, instance.elem, &inputs, cu_seqlens);
        Ok(expected)
    }

    /// The errors of every result by the rule.
    pub(crate) fn measure(&mut self, backend: &Backend) -> Result<Vec<Measurement>, Failure> {
        let expected = self.expected()?;
        let results = backend.results(self).map_err(|e| e.failure(None))?;
        judge(&expected, &results)
    }
}

/// The errors of results by the rule.
pub(crate) fn judge(
    expected: &Expected,
    results: &[(String, Tensor)],
) -> Result<Vec<Measurement>, Failure> {
    let got: Result<Arrays, sparsek_reference::Error> = results
        .iter()
        .map(|(name, t)| Ok((name.clone(), Array::from_f32(t.shape(), &t.to_f32())?)))
        .collect();
    expected.measure(&got.map_err(Failure::new)?).map_err(Failure::new)
}
