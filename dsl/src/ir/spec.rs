//! Instances: a program with its parameters put in.

use super::{Builder, Extent, IntSet, Op, Param, ParamId, Program, Real, Seen, ValueId};
use crate::Elem;
use std::collections::BTreeMap;
use thiserror::Error;

/// The parameters of one instance of a kernel.
///
/// `d`, `k` and `w` go to the parameters that the kernel uses as head dimension, as extent of
/// `sparsek` and as extent of `window`, whatever their names; `set` gives any other by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Element type of q, k, v, o.
    pub elem: Elem,
    /// Head dimension.
    pub d: i64,
    /// Keys that the top-k mask keeps; `None` for a kernel without that parameter.
    pub k: Option<i64>,
    /// Window; `None` for a kernel without that parameter.
    pub w: Option<i64>,
    /// Every other integer parameter.
    pub set: BTreeMap<String, i64>,
}

impl Spec {
    /// Element type and head dimension.
    pub fn new(elem: Elem, d: i64) -> Spec {
        Spec { elem, d, k: None, w: None, set: BTreeMap::new() }
    }

    /// With that many selected keys.
    pub fn k(mut self, k: i64) -> Spec {
        self.k = Some(k);
        self
    }

    /// With that window.
    pub fn w(mut self, w: i64) -> Spec {
        self.w = Some(w);
        self
    }

    /// With another integer parameter.
    pub fn set(mut self, name: &str, value: i64) -> Spec {
        self.set.insert(name.to_owned(), value);
        self
    }
}

/// Why a kernel could not be instantiated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The element type is not in the kernel's set.
    #[error("kernel {kernel} does not take element type {found}; it takes {}", list(.allowed))]
    Elem {
        /// Kernel.
        kernel: String,
        /// Asked for.
        found: Elem,
        /// Its set.
        allowed: Vec<Elem>,
    },
    /// A parameter is outside its set.
    #[error("{what} = {found} is outside the set of kernel {kernel}: {name} in {set}{}", nearest(.set, *.found))]
    OutOfSet {
        /// Kernel.
        kernel: String,
        /// Parameter.
        name: String,
        /// What the parameter is to the kernel.
        what: String,
        /// Asked for.
        found: i64,
        /// Its set.
        set: IntSet,
    },
    /// The kernel fixes the value.
    #[error("kernel {kernel} has {what} = {fixed} and cannot run with {found}")]
    Fixed {
        /// Kernel.
        kernel: String,
        /// What is fixed.
        what: String,
        /// The kernel's value.
        fixed: i64,
        /// Asked for.
        found: i64,
    },
    /// A parameter has no value.
    #[error("kernel {kernel} needs {what}: {name} in {set}")]
    Missing {
        /// Kernel.
        kernel: String,
        /// Parameter.
        name: String,
        /// What the parameter is to the kernel.
        what: String,
        /// Its set.
        set: IntSet,
    },
    /// The kernel has no such parameter.
    #[error("kernel {kernel} has no parameter {name}; it has {known}")]
    Unknown {
        /// Kernel.
        kernel: String,
        /// Asked for.
        name: String,
        /// Its parameters.
        known: String,
    },
    /// One parameter was given two values.
    #[error(
        "parameter {name} of kernel {kernel} is {first} as {first_as} and {second} as {second_as}; it can only have one value"
    )]
    Conflict {
        /// Kernel.
        kernel: String,
        /// Parameter.
        name: String,
        /// One value.
        first: i64,
        /// Its role.
        first_as: String,
        /// The other value.
        second: i64,
        /// Its role.
        second_as: String,
    },
}

fn list(elems: &[Elem]) -> String {
    elems.iter().map(|e| e.name()).collect::<Vec<_>>().join(", ")
}

fn nearest(set: &IntSet, x: i64) -> String {
    set.nearest(x).map(|n| format!(" (the nearest is {n})")).unwrap_or_default()
}

/// A program whose parameters are constants.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The program: no [`Op::Param`], every [`Extent`] a literal, one element type.
    pub program: Program,
    /// Element type of q, k, v, o.
    pub elem: Elem,
    /// Head dimension.
    pub d: usize,
    /// Keys that the top-k mask keeps; 0 for a kernel without one.
    pub k: usize,
    /// Window; 0 for none.
    pub w: usize,
    /// Sinks; 0 for none.
    pub sinks: usize,
}

/// Values of parameters under collection, with what each was given as.
struct Values<'a> {
    program: &'a Program,
    values: Vec<Option<(i64, String)>>,
}

impl Values<'_> {
    fn kernel(&self) -> String {
        self.program.name.clone()
    }

    fn give(&mut self, id: ParamId, value: i64, what: &str) -> Result<(), SpecError> {
        let Param { name, set } = &self.program.params[id.0 as usize];
        if !set.contains(value) {
            return Err(SpecError::OutOfSet {
                kernel: self.kernel(),
                name: name.clone(),
                what: what.to_owned(),
                found: value,
                set: set.clone(),
            });
        }
        match &self.values[id.0 as usize] {
            Some((first, first_as)) if *first != value => Err(SpecError::Conflict {
                kernel: self.kernel(),
                name: name.clone(),
                first: *first,
                first_as: first_as.clone(),
                second: value,
                second_as: what.to_owned(),
            }),
            _ => {
                self.values[id.0 as usize] = Some((value, what.to_owned()));
                Ok(())
            }
        }
    }

    /// A value that was given for a role, against what the kernel has in that role.
    fn give_role(
        &mut self,
        extent: Option<Extent>,
        value: Option<i64>,
        what: &str,
    ) -> Result<(), SpecError> {
        match (extent, value) {
            (Some(Extent::Param(id)), Some(value)) => self.give(id, value, what),
            (Some(Extent::Literal(fixed)), Some(found)) if i64::from(fixed) != found => {
                Err(SpecError::Fixed {
                    kernel: self.kernel(),
                    what: what.to_owned(),
                    fixed: i64::from(fixed),
                    found,
                })
            }
            (None, Some(found)) => Err(SpecError::Fixed {
                kernel: self.kernel(),
                what: what.to_owned(),
                fixed: 0,
                found,
            }),
            _ => Ok(()),
        }
    }
}

impl Program {
    /// What an integer parameter is to the kernel: `head dimension`, `k`, `window`, or its name.
    pub fn param_role(&self, id: ParamId) -> String {
        let is = |e: Option<Extent>| e == Some(Extent::Param(id));
        if is(Some(self.head_dim)) {
            "head dimension".to_owned()
        } else if is(self.gate().map(|g| g.k)) {
            "k".to_owned()
        } else if is(self.seen_set().window) {
            "window".to_owned()
        } else {
            self.params[id.0 as usize].name.clone()
        }
    }

    /// The instance of this program with those parameters, each checked against its set.
    pub fn instantiate(&self, spec: &Spec) -> Result<Instance, SpecError> {
        let kernel = || self.name.clone();
        if !self.elem.set.contains(&spec.elem) {
            return Err(SpecError::Elem {
                kernel: kernel(),
                found: spec.elem,
                allowed: self.elem.set.clone(),
            });
        }
        let seen = self.seen_set();
        let mut values = Values { program: self, values: vec![None; self.params.len()] };
        values.give_role(Some(self.head_dim), Some(spec.d), "head dimension")?;
        values.give_role(self.gate().map(|g| g.k), spec.k, "k")?;
        values.give_role(
            seen.window,
            spec.w.filter(|w| seen.window.is_some() || *w != 0),
            "window",
        )?;
        for (name, value) in &spec.set {
            match self.params.iter().position(|p| p.name == *name) {
                Some(i) => values.give(ParamId(i as u32), *value, name)?,
                None => {
                    let names: Vec<&str> = self.params.iter().map(|p| p.name.as_str()).collect();
                    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    return Err(SpecError::Unknown { kernel: kernel(), name: name.clone(), known });
                }
            }
        }
        let mut resolved = Vec::with_capacity(self.params.len());
        for (i, value) in values.values.iter().enumerate() {
            match value {
                Some((value, _)) => resolved.push(*value),
                None => {
                    let Param { name, set } = self.params[i].clone();
                    let what = self.param_role(ParamId(i as u32));
                    return Err(SpecError::Missing { kernel: kernel(), name, what, set });
                }
            }
        }
        Ok(self.put_in(spec.elem, &resolved))
    }

    /// Parameters become constants, and what only depends on constants is folded.
    fn put_in(&self, elem: Elem, params: &[i64]) -> Instance {
        let literal = |e: Extent| match e {
            Extent::Literal(n) => n,
            Extent::Param(id) => params[id.0 as usize].clamp(0, i64::from(u32::MAX)) as u32,
        };
        let extent = |e: Extent| Extent::Literal(literal(e));
        let mut builder = Builder::new();
        for input in &self.inputs {
            builder.input(input.clone());
        }
        let mut map: Vec<ValueId> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let op = node.op.map_operands(|o| map[o.index()]);
            let op = match op {
                Op::Param(id) => {
                    Op::Int(params[id.0 as usize].clamp(i64::from(i32::MIN), i64::from(i32::MAX))
                        as i32)
                }
                Op::Sparsek { score, k } => Op::Sparsek { score, k: extent(k) },
                Op::Seen(s) => {
                    Op::Seen(Seen { window: s.window.map(extent), sinks: s.sinks.map(extent), ..s })
                }
                other => other,
            };
            let v = builder.derive(folded(&builder, op));
            if let Some(name) = &node.name {
                builder.name(v, name);
            }
            map.push(v);
        }
        let (mut inputs, nodes) = builder.finish();
        for input in &mut inputs {
            input.default = input.default.map(|d| map[d.index()]);
        }
        let mut program = Program {
            elem: super::ElemParam { name: None, set: vec![elem] },
            head_dim: extent(self.head_dim),
            params: Vec::new(),
            inputs,
            nodes,
            seen: map[self.seen.index()],
            ..self.clone()
        };
        for output in &mut program.outputs {
            output.value = map[output.value.index()];
        }
        let program = program.without_dead_nodes();
        let seen = program.seen_set().clone();
        Instance {
            elem,
            d: literal(self.head_dim) as usize,
            k: program.gate().map_or(0, |g| literal(g.k) as usize),
            w: seen.window.map_or(0, |w| literal(w) as usize),
            sinks: seen.sinks.map_or(0, |s| literal(s) as usize),
            program,
        }
    }
}

/// Integers that became known are numbers.
fn folded(builder: &Builder, op: Op) -> Op {
    match op {
        Op::ToFloat(x) => match builder.node(x).op {
            Op::Int(n) => Op::Const(Real::new(n as f32)),
            _ => op,
        },
        other => other,
    }
}
