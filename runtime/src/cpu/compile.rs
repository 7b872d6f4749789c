//! A program as segments: which values are computed in which domain of a tile, in which order, and
//! what is done with the results.
//!
//! Values that only depend on inputs are *early*: uniform ones once for a sequence and key-value
//! head, row and column ones once for a tile, pair ones for each row. What depends on a sum over
//! pairs is *late*: a row's sums are complete when its tile is, a key's when the sequence is, and
//! sums over heads or everything when all work is done ([`super::finish`]).

use super::elementwise::{Domain, Instr, Loc};
use crate::Error;
use sparsek_dsl::ir::{Class, Coord, InputId, Kind, Op, Program, Role, ValueId};

/// Where a lane value comes from when it is not computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Const(f32),
    Int(i32),
    /// An input, or the value at the second place where the tensor was not given.
    Input(InputId, Option<Loc>),
    Coord(Coord),
    /// Entry of the n-th row-wise dot product.
    RowDot(usize),
    /// Column sums of the whole sequence, late.
    KeySum(usize),
    /// Row sums of the tile, late.
    RowSum(usize),
}

/// A vector input that takes part in products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vector {
    /// Of queries: index into [`Segments::query_vectors`].
    Query(usize),
    /// Of keys: index into [`Segments::key_vectors`].
    Key(usize),
}

/// Where a value of the program went.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Lanes of a tile.
    Lane { loc: Loc, late: bool },
    /// A vector input.
    Vector(Vector),
    /// Known when all work is done.
    Small,
    /// Handled elsewhere: the seen set, outputs made of products.
    Structural,
}

/// Sums over pairs or rows that are not lanes of a tile.
#[derive(Clone, Debug)]
pub(crate) struct SmallSum {
    /// The program's value.
    pub(crate) value: ValueId,
    /// Scalar, PerBatch or PerHead.
    pub(crate) class: Class,
    /// What is summed: a Row value (late or early) or a Col value.
    pub(crate) of: Loc,
}

/// A product of weights with vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighted {
    pub(crate) value: ValueId,
    /// Index into [`Segments::stores`].
    pub(crate) store: usize,
    pub(crate) vector: Vector,
}

/// A program compiled to segments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// Sizes of the frames: floats and integers by domain.
    pub(crate) floats: [usize; 4],
    pub(crate) ints: [usize; 4],
    pub(crate) loads: Vec<(Loc, Source)>,
    pub(crate) uniform: Vec<Instr>,
    pub(crate) row: Vec<Instr>,
    pub(crate) col: Vec<Instr>,
    /// Pair instructions up to the softmax, and after it.
    pub(crate) pair: Vec<Instr>,
    pub(crate) after_softmax: Vec<Instr>,
    pub(crate) row_late: Vec<Instr>,
    pub(crate) col_late: Vec<Instr>,
    /// Masks that remove pairs.
    pub(crate) predicates: Vec<Loc>,
    /// Logit and probability of the softmax, and its sink.
    pub(crate) softmax: Option<(Loc, Loc)>,
    pub(crate) sink: Option<Loc>,
    /// Products over the head dimension: a query vector with a key vector.
    pub(crate) products: Vec<(usize, usize)>,
    /// Row-wise products of two query vectors.
    pub(crate) row_dots: Vec<(usize, usize)>,
    pub(crate) query_vectors: Vec<InputId>,
    pub(crate) key_vectors: Vec<InputId>,
    /// Pair values that are stored as tiles for products.
    pub(crate) stores: Vec<Loc>,
    pub(crate) weighted: Vec<Weighted>,
    /// Pair values summed to rows: value, and the row slot of the sum.
    pub(crate) row_sums: Vec<(Loc, Loc)>,
    /// Pair values summed to columns.
    pub(crate) col_sums: Vec<Loc>,
    /// Adjoint of the gate, and the column sum that collects its direct term.
    pub(crate) mask_vjp: Option<(Loc, usize)>,
    pub(crate) small: Vec<SmallSum>,
    /// The gate's vector.
    pub(crate) gate: Option<Loc>,
    places: Vec<Option<Place>>,
}

impl Domain {
    fn index(self) -> usize {
        match self {
            Domain::Uniform => 0,
            Domain::Row => 1,
            Domain::Col => 2,
            Domain::Pair | Domain::Product => 3,
        }
    }
}

struct Compiler<'a> {
    program: &'a Program,
    out: Segments,
    softmax_seen: bool,
}

type Fallible<T> = Result<T, Error>;

impl Segments {
    /// Compiles what `roots` need; the score of a gate is read from its vector, not computed.
    pub(crate) fn compile(program: &Program, roots: &[ValueId]) -> Fallible<Segments> {
        let mut live = vec![false; program.nodes.len()];
        for root in roots.iter().chain(&program.seen_set().predicates) {
            live[root.index()] = true;
        }
        for v in program
            .ids()
            .rev()
            .filter(|v| !matches!(program.node(*v).op, Op::Sparsek { .. } | Op::Seen(_)))
        {
            if live[v.index()] {
                program.node(v).op.for_each_operand(|o| live[o.index()] = true);
                if let Op::Input(id) = program.node(v).op
                    && let Some(default) = program.input(id).default
                {
                    mark(program, &mut live, default);
                }
            }
        }
        let mut c = Compiler { program, out: Segments::default(), softmax_seen: false };
        // The vectors that every tile has: see the constants of [`super::elementwise`].
        c.out.floats = [0, 1, 1, 0];
        c.out.ints = [0, 1, 3, 1];
        c.out.places = vec![None; program.nodes.len()];
        for v in program.ids().filter(|v| live[v.index()]) {
            let place = c.place(v)?;
            c.out.places[v.index()] = Some(place);
        }
        c.out.predicates = {
            let masks = &program.seen_set().predicates;
            masks.iter().map(|m| c.lane(*m).map(|(loc, _)| loc)).collect::<Fallible<_>>()?
        };
        Ok(c.out)
    }

    /// The lanes of a value, when it has any.
    pub(crate) fn loc(&self, v: ValueId) -> Option<Loc> {
        match self.places.get(v.index()).copied().flatten() {
            Some(Place::Lane { loc, .. }) => Some(loc),
            _ => None,
        }
    }
}

/// Defaults are constant expressions before the input in the arena or after it.
fn mark(program: &Program, live: &mut [bool], v: ValueId) {
    let mut stack = vec![v];
    while let Some(v) = stack.pop() {
        live[v.index()] = true;
        stack.extend(program.node(v).op.operands());
    }
}

impl Compiler<'_> {
    fn unsupported(&self, reason: &str) -> Error {
        Error::Unsupported { kernel: self.program.name.clone(), reason: reason.to_owned() }
    }

    fn new_loc(&mut self, domain: Domain, int: bool) -> Loc {
        let count = if int { &mut self.out.ints } else { &mut self.out.floats };
        let slot = count[domain.index()];
        count[domain.index()] += 1;
        Loc { domain, int, slot }
    }

    fn placed(&self, v: ValueId) -> Fallible<Place> {
        self.out.places[v.index()]
            .ok_or_else(|| self.unsupported("an operand is used before it is computed"))
    }

    fn lane(&self, v: ValueId) -> Fallible<(Loc, bool)> {
        match self.placed(v)? {
            Place::Lane { loc, late } => Ok((loc, late)),
            Place::Vector(_) | Place::Small | Place::Structural => {
                Err(self.unsupported("a value is needed before all of it is known"))
            }
        }
    }

    fn vector(&self, v: ValueId) -> Fallible<Vector> {
        match self.placed(v)? {
            Place::Vector(vector) => Ok(vector),
            Place::Lane { .. } | Place::Small | Place::Structural => {
                Err(self.unsupported("a product of something else than input vectors"))
            }
        }
    }

    fn load(&mut self, domain: Domain, int: bool, source: Source) -> Place {
        let loc = self.new_loc(domain, int);
        self.out.loads.push((loc, source));
        Place::Lane { loc, late: false }
    }

    fn late(&mut self, domain: Domain, source: Source) -> Place {
        let loc = self.new_loc(domain, false);
        self.out.loads.push((loc, source));
        Place::Lane { loc, late: true }
    }

    fn place(&mut self, v: ValueId) -> Fallible<Place> {
        let program = self.program;
        match &program.node(v).op {
            Op::Const(x) => Ok(self.load(Domain::Uniform, false, Source::Const(x.get()))),
            Op::Int(n) => Ok(self.load(Domain::Uniform, true, Source::Int(*n))),
            Op::Param(_) => Err(self.unsupported("a parameter has no value")),
            Op::Input(id) => self.input(*id),
            Op::Coord(c) => {
                let domain = match c {
                    Coord::QueryPos | Coord::QueryHead => Domain::Row,
                    Coord::KeyPos => Domain::Col,
                    Coord::KeyHead | Coord::Batch => Domain::Uniform,
                };
                Ok(self.load(domain, true, Source::Coord(*c)))
            }
            Op::Unary(f, x) => self.instr(&[*x], false, |out, a| Instr::Unary(*f, out, a[0])),
            Op::Binary(f, x, y) => {
                self.instr(&[*x, *y], false, |out, a| Instr::Binary(*f, out, a[0], a[1]))
            }
            Op::Compare(f, x, y) => {
                self.instr(&[*x, *y], true, |out, a| Instr::Compare(*f, out, a[0], a[1]))
            }
            Op::Logic(f, x, y) => {
                self.instr(&[*x, *y], true, |out, a| Instr::Logic(*f, out, a[0], a[1]))
            }
            Op::Not(x) => self.instr(&[*x], true, |out, a| Instr::Not(out, a[0])),
            Op::Select(c, x, y) => {
                self.instr(&[*c, *x, *y], false, |out, a| Instr::Select(out, a[0], a[1], a[2]))
            }
            Op::ToFloat(x) => self.instr(&[*x], false, |out, a| Instr::ToFloat(out, a[0])),
            Op::StraightThrough(_) => Ok(self.load(Domain::Uniform, false, Source::Const(1.0))),
            Op::Sparsek { .. } => {
                let loc = self.new_loc(Domain::Pair, false);
                self.out.gate = Some(loc);
                self.pair_segment().push(Instr::Gate(loc));
                Ok(Place::Lane { loc, late: false })
            }
            Op::Seen(_) => Ok(Place::Structural),
            Op::Softmax { logit, sink, .. } => self.softmax(*logit, *sink),
            Op::Lse(_) => Ok(Place::Structural),
            Op::Dot(a, b) => self.dot(*a, *b),
            Op::WeightedSum { weight, tile } => {
                let vector = self.vector(*tile)?;
                let weight = self.pair_value(*weight)?;
                let known = self.out.stores.iter().position(|s| *s == weight);
                let store = known.unwrap_or_else(|| {
                    self.out.stores.push(weight);
                    self.out.stores.len() - 1
                });
                self.out.weighted.push(Weighted { value: v, store, vector });
                Ok(Place::Structural)
            }
            Op::MaskVjp { d_gate, .. } => {
                let d_gate = self.pair_value(*d_gate)?;
                let sum = self.out.col_sums.len();
                self.out.col_sums.push(d_gate);
                self.out.mask_vjp = Some((d_gate, sum));
                Ok(self.late(Domain::Col, Source::KeySum(sum)))
            }
            Op::Sum { value, to } => self.sum(v, *value, *to),
        }
    }

    fn pair_segment(&mut self) -> &mut Vec<Instr> {
        if self.softmax_seen { &mut self.out.after_softmax } else { &mut self.out.pair }
    }

    fn input(&mut self, id: InputId) -> Fallible<Place> {
        let input = self.program.input(id);
        let int = input.ty.kind == Kind::I32;
        if input.ty.kind == Kind::Vector {
            let query = matches!(input.role, Role::Query | Role::Output | Role::OutputGrad);
            let list = if query { &mut self.out.query_vectors } else { &mut self.out.key_vectors };
            list.push(id);
            let n = list.len() - 1;
            return Ok(Place::Vector(if query { Vector::Query(n) } else { Vector::Key(n) }));
        }
        let default = match input.default {
            Some(d) => Some(self.default(d)?),
            None => None,
        };
        let domain = match input.ty.class {
            Class::Scalar | Class::PerBatch => Domain::Uniform,
            Class::PerHead | Class::PerQuery => Domain::Row,
            Class::PerKey => Domain::Col,
            Class::Pair => return Err(self.unsupported("an input for every pair")),
        };
        Ok(self.load(domain, int, Source::Input(id, default)))
    }

    /// A default may stand after its input in the arena: it is computed where it is needed.
    fn default(&mut self, v: ValueId) -> Fallible<Loc> {
        if self.out.places[v.index()].is_none() {
            for o in self.program.node(v).op.operands() {
                self.default(o)?;
            }
            let place = self.place(v)?;
            self.out.places[v.index()] = Some(place);
        }
        self.lane(v).map(|(loc, _)| loc)
    }

    /// An elementwise instruction in the smallest domain that its operands allow.
    fn instr(
        &mut self,
        operands: &[ValueId],
        int: bool,
        make: impl Fn(Loc, &[Loc]) -> Instr,
    ) -> Fallible<Place> {
        let mut domain = Domain::Uniform;
        let mut late = false;
        let mut locs = Vec::with_capacity(operands.len());
        for o in operands {
            match self.placed(*o)? {
                Place::Lane { loc, late: l } => {
                    domain = domain.join(loc.domain);
                    late |= l;
                    locs.push(loc);
                }
                Place::Small => return Ok(Place::Small),
                Place::Vector(_) | Place::Structural => {
                    return Err(self.unsupported("arithmetic on vectors"));
                }
            }
        }
        let out = self.new_loc(domain, int);
        let instr = make(out, &locs);
        match (domain, late) {
            (Domain::Uniform, false) => self.out.uniform.push(instr),
            (Domain::Row, false) => self.out.row.push(instr),
            (Domain::Col, false) => self.out.col.push(instr),
            (Domain::Pair | Domain::Product, false) => self.pair_segment().push(instr),
            (Domain::Row, true) => self.out.row_late.push(instr),
            (Domain::Col, true) => self.out.col_late.push(instr),
            (Domain::Uniform | Domain::Pair | Domain::Product, true) => {
                return Err(self.unsupported("a pair value that depends on sums over pairs"));
            }
        }
        Ok(Place::Lane { loc: out, late })
    }

    fn softmax(&mut self, logit: ValueId, sink: Option<ValueId>) -> Fallible<Place> {
        let others = self.program.ids().filter(|v| {
            let op = &self.program.node(*v).op;
            !matches!(op, Op::Softmax { .. }) && op.operands().contains(&logit)
        });
        let last_use = others.count() == 0;
        let logit = self.pair_value(logit)?;
        // Probabilities take the place of logits that nothing else reads.
        let p = if last_use { logit } else { self.new_loc(Domain::Pair, false) };
        self.out.softmax = Some((logit, p));
        self.out.sink = match sink {
            Some(sink) => Some(self.lane(sink)?.0),
            None => None,
        };
        self.softmax_seen = true;
        Ok(Place::Lane { loc: p, late: false })
    }

    /// A value for every pair in a vector of its own: what masks and sums may overwrite.
    fn pair_value(&mut self, v: ValueId) -> Fallible<Loc> {
        let (loc, late) = self.lane(v)?;
        if late {
            return Err(self.unsupported("a pair value that depends on sums over pairs"));
        }
        if loc.domain == Domain::Pair {
            return Ok(loc);
        }
        let copy = self.new_loc(Domain::Pair, false);
        self.pair_segment().push(Instr::Copy(copy, loc));
        Ok(copy)
    }

    /// A PerQuery or PerKey value with a lane for each row or column, though all are the same.
    fn lane_of_class(&mut self, v: ValueId) -> Fallible<Loc> {
        let (loc, _) = self.lane(v)?;
        if loc.domain != Domain::Uniform {
            return Ok(loc);
        }
        let by_key = self.program.ty(v).class == Class::PerKey;
        let copy = self.new_loc(if by_key { Domain::Col } else { Domain::Row }, false);
        let segment = if by_key { &mut self.out.col } else { &mut self.out.row };
        segment.push(Instr::Copy(copy, loc));
        Ok(copy)
    }

    fn dot(&mut self, a: ValueId, b: ValueId) -> Fallible<Place> {
        match (self.vector(a)?, self.vector(b)?) {
            (Vector::Query(q), Vector::Key(k)) | (Vector::Key(k), Vector::Query(q)) => {
                self.out.products.push((q, k));
                let n = self.out.products.len() - 1;
                Ok(Place::Lane { loc: Loc::float(Domain::Product, n), late: false })
            }
            (Vector::Query(a), Vector::Query(b)) => {
                self.out.row_dots.push((a, b));
                let n = self.out.row_dots.len() - 1;
                Ok(self.load(Domain::Row, false, Source::RowDot(n)))
            }
            (Vector::Key(_), Vector::Key(_)) => Err(self.unsupported("a product of two keys")),
        }
    }

    fn sum(&mut self, v: ValueId, value: ValueId, to: Class) -> Fallible<Place> {
        if self.placed(value)? == Place::Small {
            return Ok(Place::Small);
        }
        match (self.program.ty(value).class, to) {
            (Class::Pair, Class::PerKey) => {
                let value = self.pair_value(value)?;
                let n = self.out.col_sums.len();
                self.out.col_sums.push(value);
                Ok(self.late(Domain::Col, Source::KeySum(n)))
            }
            (Class::Pair, _) => {
                let value = self.pair_value(value)?;
                let n = self.out.row_sums.len();
                let Place::Lane { loc, late } = self.late(Domain::Row, Source::RowSum(n)) else {
                    return Err(self.unsupported("a sum without a place"));
                };
                self.out.row_sums.push((value, loc));
                if to == Class::PerQuery {
                    return Ok(Place::Lane { loc, late });
                }
                self.out.small.push(SmallSum { value: v, class: to, of: loc });
                Ok(Place::Small)
            }
            (Class::PerQuery | Class::PerKey, _) => {
                let of = self.lane_of_class(value)?;
                self.out.small.push(SmallSum { value: v, class: to, of });
                Ok(Place::Small)
            }
            // Few enough values to be summed at the end.
            (Class::Scalar | Class::PerBatch | Class::PerHead, _) => Ok(Place::Small),
        }
    }
}
