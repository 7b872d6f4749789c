//! Every visibility, documentation carried over, names of the prelude shadowed, and an invocation
//! inside a function and through `macro_rules`.
#![deny(warnings, missing_docs)]
#![allow(unreachable_pub)]

/// Holds kernels.
pub mod kernels {
    // Expansions use absolute paths only.
    /// Not the `Option` of the prelude.
    #[allow(dead_code)]
    pub struct Option;
    /// Not the `Result` of the prelude.
    #[allow(dead_code)]
    pub struct Result;
    /// Not the `Clone` of the prelude.
    #[allow(dead_code)]
    pub trait Clone {}
    /// Not the crate.
    #[allow(dead_code)]
    pub mod sparsek {}

    ::sparsek::sparsek_kernel! {
        /// A window.
        ///
        /// With a slope.
        pub kernel Public<E in [f32], D in [16], W in 0..=64>(
            q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
            /// One for each head.
            slope: PerHead = 0.0,
            doc_q: PerQuery<i32>, doc_k: PerKey<i32>,
        ) -> Output<E, D> {
            let seen = causal & window(W) & (doc_q == doc_k);
            dot(softmax(dot(q, k) + slope * (k.pos - q.pos), seen), v)
        }

        pub(crate) kernel InCrate(
            q: Query<f32, 64>, k: Key<f32, 64>, v: Key<f32, 64>,
        ) -> Output<f32, 64> {
            dot(softmax(dot(q, k), causal & window(64)), v)
        }

        kernel Private(
            q: Query<f32, 64>, k: Key<f32, 64>, v: Value<f32, 64>,
        ) -> Output<f32, 64> {
            dot(softmax(dot(q, k), causal & window(64)), v)
        }
        schedule { forward { tile q in [64], kv in [32]; } }
    }

    /// Uses the private one.
    pub fn private() -> &'static str {
        Private::PROGRAM
    }
}

macro_rules! window {
    ($visibility:vis $name:ident, $elem:ident, $d:literal, $scale:expr) => {
        sparsek::sparsek_kernel! {
            $visibility kernel $name(
                q: Query<$elem, $d>, k: Key<$elem, $d>, v: Key<$elem, $d>,
            ) -> Output<$elem, $d> {
                dot(softmax(dot(q, k) * $scale, causal & window(8)), v)
            }
        }
    };
}

window!(pub(crate) FromRules, f16, 32, 0.5 + 0.5);

#[test]
fn names_and_visibilities_stay() {
    sparsek::sparsek_kernel! {
        kernel Local(q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>) -> Output<f32, 16> {
            dot(softmax(dot(q, k), causal & window(8)), v)
        }
    }
    let program = Local::program().unwrap();
    assert_eq!(program.name, "Local");
    assert_eq!(FromRules::program().unwrap().inputs.len(), 3);
    // An invisible bracket around the factor keeps its meaning.
    assert!(FromRules::program().unwrap().to_string().contains("* (0.5 + 0.5)"));
    assert_eq!(kernels::Public::program().unwrap().docs, ["A window.", "", "With a slope."]);
    assert!(kernels::InCrate::PROGRAM.starts_with('{') && kernels::private().starts_with('{'));
    let spec = sparsek::Spec::new(sparsek::Elem::F32, 16).w(65);
    assert!(kernels::Public::new(spec).unwrap_err().to_string().contains("0..=64"));
}
