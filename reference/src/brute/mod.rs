//! SPARSEK attention from its definition.
//!
//! For each sequence, query head h reads key-value head g = h / (Hq / Hkv). Query i:
//!
//! * sinks j < s and the window i − w < j <= i are seen, with gate 1;
//! * candidates R_i are the keys s <= j <= i − w whose score is neither NaN nor −inf;
//! * tau_i is the largest t with Σ_{R_i} clip(u_j − t, 0, 1) >= k, −inf when R_i has at most k keys;
//! * the gate m_ij is clip(u_j − tau_i, 0, 1) on R_i, 1 when tau_i = −inf and 1 off R_i;
//! * selected are the k candidates of highest score, ties to the smaller index;
//! * o_i = Σ_{seen} w_ij v_j with p = softmax over the seen keys and w = p m or p.
//!
//! The logit is softcap(scale (q·k) m? + slope_h (j − i)), softcap(x) = c tanh(x / c).
//!
//! Gradients are written out by hand (`gradients.rs`); d m_ij / d u_l = \[j, l in I_i\] (δ_jl − 1/|I_i|)
//! with I_i = { j in R_i : 0 < m_ij < 1 }. Everything is f64 and takes O(N²).

mod gradients;
mod output;
mod select;

use crate::{Array, Arrays, Error, Plan, Sequence};
use select::Selection;

/// Where the gate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// On the values: w = p m.
    Value,
    /// On the keys: logit of (q·k) m.
    Key,
    /// On both.
    Both,
    /// Nowhere: selected keys count in full.
    Hard,
    /// 1 on the values, with the derivative of `Value`'s factor.
    StraightThrough,
}

impl Gate {
    /// Every gate, for tables and generators.
    pub const ALL: [Gate; 5] =
        [Gate::Value, Gate::Key, Gate::Both, Gate::Hard, Gate::StraightThrough];

    /// The gate of that name: `value`, `key`, `both`, `hard` or `straight_through`.
    pub fn from_name(name: &str) -> Option<Gate> {
        Gate::ALL.into_iter().find(|g| g.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Value => "value",
            Gate::Key => "key",
            Gate::Both => "both",
            Gate::Hard => "hard",
            Gate::StraightThrough => "straight_through",
        }
    }

    fn on_keys(self) -> bool {
        matches!(self, Gate::Key | Gate::Both)
    }

    fn on_values(self) -> bool {
        matches!(self, Gate::Value | Gate::Both)
    }
}

/// One form of SPARSEK attention.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Keys that the top-k mask keeps.
    pub k: usize,
    /// Window; 0 for none.
    pub window: usize,
    /// Sinks; 0 for none.
    pub sinks: usize,
    /// Where the gate goes.
    pub gate: Gate,
    /// Factor of q·k; `None` for 1/√D.
    pub scale: Option<f64>,
    /// Softcap c; `None` for none.
    pub softcap: Option<f64>,
}

/// Results of one problem.
#[derive(Clone, Debug)]
pub struct Results {
    /// `o` \[B, N, Hq, D\], `lse` \[B, Hq, N\], and with `d_o` the gradients `d_q` `d_k` `d_v` `d_u`, and
    /// `d_slope` where there is a slope, each in its input's layout.
    pub arrays: Arrays,
    /// Scores, tau and expiry.
    pub plan: Plan,
}

/// Sizes, and where each entry of the arrays is.
struct Sizes {
    n: usize,
    hq: usize,
    hkv: usize,
    d: usize,
}

impl Sizes {
    fn query(&self, s: Sequence, i: usize, h: usize) -> usize {
        ((s.row * self.n + s.start + i) * self.hq + h) * self.d
    }

    fn key(&self, s: Sequence, j: usize, g: usize) -> usize {
        ((s.row * self.n + s.start + j) * self.hkv + g) * self.d
    }

    fn per_query_head(&self, s: Sequence, h: usize, i: usize) -> usize {
        (s.row * self.hq + h) * self.n + s.start + i
    }

    fn per_key_head(&self, s: Sequence, g: usize, j: usize) -> usize {
        (s.row * self.hkv + g) * self.n + s.start + j
    }
}

/// A problem with its shapes checked.
struct Problem<'a> {
    form: &'a Attention,
    scale: f64,
    sizes: Sizes,
    q: &'a [f64],
    k: &'a [f64],
    v: &'a [f64],
    u: &'a [f64],
    slope: Option<&'a [f64]>,
    d_o: Option<&'a [f64]>,
}

/// Computes one problem: inputs `q` \[B, N, Hq, D\], `k` `v` \[B, N, Hkv, D\], `u` \[B, Hkv, N\],
/// optionally `slope` \[Hq\] and `d_o` \[B, N, Hq, D\]; other names are ignored.
///
/// # Errors
/// Inputs that are missing or whose shapes do not agree; unusable `cu_seqlens`.
pub fn run(
    form: &Attention,
    inputs: &Arrays,
    cu_seqlens: Option<&[i32]>,
) -> Result<Results, Error> {
    let q = get(inputs, "q", "[B, N, Hq, D]")?;
    let k = get(inputs, "k", "[B, N, Hkv, D]")?;
    let &[batch, n, hq, d] = q.shape() else {
        return Err(shape_error("q", q, "[B, N, Hq, D]"));
    };
    let &[_, _, hkv, _] = k.shape() else {
        return Err(shape_error("k", k, "[B, N, Hkv, D]"));
    };
    if hkv == 0 || hq % hkv != 0 {
        return Err(Error::Heads { hq, hkv });
    }
    let exactly = |name: &str, shape: &[usize]| {
        let array = get(inputs, name, &format!("{shape:?}"))?;
        if array.shape() == shape {
            Ok(array.data())
        } else {
            Err(shape_error(name, array, &format!("{shape:?}")))
        }
    };
    let optional = |name: &str, shape: &[usize]| match inputs.get(name) {
        Some(_) => exactly(name, shape).map(Some),
        None => Ok(None),
    };
    let problem = Problem {
        form,
        scale: form.scale.unwrap_or(1.0 / (d as f64).sqrt()),
        q: q.data(),
        k: exactly("k", &[batch, n, hkv, d])?,
        v: exactly("v", &[batch, n, hkv, d])?,
        u: exactly("u", &[batch, hkv, n])?,
        slope: optional("slope", &[hq])?,
        d_o: optional("d_o", &[batch, n, hq, d])?,
        sizes: Sizes { n, hq, hkv, d },
    };
    let sequences = Sequence::all(batch, n, cu_seqlens)?;
    Ok(problem.solve(batch, sequences))
}

fn get<'a>(inputs: &'a Arrays, name: &str, wanted: &str) -> Result<&'a Array, Error> {
    inputs
        .get(name)
        .ok_or_else(|| Error::Missing { name: name.to_owned(), wanted: wanted.to_owned() })
}

fn shape_error(name: &str, found: &Array, wanted: &str) -> Error {
    let (name, wanted) = (name.to_owned(), wanted.to_owned());
    Error::Shape { name, found: found.shape().to_vec(), wanted }
}

impl Problem<'_> {
    fn solve(&self, batch: usize, sequences: Vec<Sequence>) -> Results {
        let Sizes { n, hq, hkv, d } = self.sizes;
        let mut arrays = Arrays::new();
        let mut zeros = |name: &str, shape: &[usize]| {
            arrays.insert(name.to_owned(), Array::zeros(shape));
        };
        zeros("o", &[batch, n, hq, d]);
        zeros("lse", &[batch, hq, n]);
        if self.d_o.is_some() {
            zeros("d_q", &[batch, n, hq, d]);
            zeros("d_k", &[batch, n, hkv, d]);
            zeros("d_v", &[batch, n, hkv, d]);
            zeros("d_u", &[batch, hkv, n]);
            if self.slope.is_some() {
                zeros("d_slope", &[hq]);
            }
        }
        let mut plan = Plan {
            k: Some(self.form.k),
            window: self.form.window,
            sinks: self.form.sinks,
            sequences: sequences.clone(),
            scores: Some(Array::zeros(&[batch, hkv, n])),
            tau: Array::zeros(&[batch, hkv, n]),
            expiry: Array::zeros(&[batch, hkv, n]),
        };
        if let Some(scores) = &mut plan.scores {
            scores.data_mut().copy_from_slice(self.u);
        }
        for s in sequences {
            for g in 0..hkv {
                let at = self.sizes.per_key_head(s, g, 0);
                let selection = Selection::new(&self.u[at..at + s.len], self.form);
                plan.tau.data_mut()[at..at + s.len].copy_from_slice(&selection.tau);
                for (to, e) in plan.expiry.data_mut()[at..].iter_mut().zip(selection.expiry()) {
                    *to = e as f64;
                }
                self.group(s, g, &selection, &mut arrays);
            }
        }
        Results { arrays, plan }
    }

    /// The query heads that read key-value head `g` of one sequence.
    fn group(&self, s: Sequence, g: usize, selection: &Selection, arrays: &mut Arrays) {
        let group = self.sizes.hq / self.sizes.hkv;
        for i in 0..s.len {
            // Adjoint of the gate, summed over the heads of the group.
            let mut d_gate = vec![0.0; i + 1];
            for h in g * group..(g + 1) * group {
                let row = self.row(s, g, h, i, selection);
                self.store_output(s, g, h, i, &row, arrays);
                if let Some(d_o) = self.d_o {
                    self.row_gradients(s, g, h, i, &row, d_o, arrays, &mut d_gate);
                }
            }
            if let Some(d_u) = arrays.get_mut("d_u") {
                let at = self.sizes.per_key_head(s, g, 0);
                selection.backward(i, &d_gate, &mut d_u.data_mut()[at..at + s.len]);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
