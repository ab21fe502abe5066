//! Series by their labels: found without allocating, bounded in number.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

/// Series a table holds before the rest shares one. Labels hold what callers choose (host, route tag), so that without a
/// bound any caller could fill the memory; Knative's own instruments have the same bound.
pub(crate) const SERIES_MAX: usize = 2000;
/// The longest text a label may have; series with longer ones are counted with those beyond [`SERIES_MAX`].
pub(crate) const LABEL_MAX_BYTES: usize = 253;

/// The value of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LabelValue {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Bool(bool),
}

/// Labels of one series, by name.
pub(crate) type LabelPairs = Vec<(&'static str, LabelValue)>;

/// The labels a table is keyed by, owned; `Borrowed` is how a request offers them.
pub(crate) trait Labels: Sized {
    /// The same labels, borrowed from a request. Its hash must not depend on who owns the text.
    type Borrowed<'a>: Hash;

    /// Owned labels; `None` if one is too long to keep.
    fn own(borrowed: &Self::Borrowed<'_>) -> Option<Self>;
    /// Whether these are the same.
    fn is(&self, borrowed: &Self::Borrowed<'_>) -> bool;
    /// Names and values, sorted by name.
    fn pairs(&self) -> LabelPairs;
}

/// Series by label.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    hasher: RandomState,
    /// Positions in `series` by the hash of their labels.
    index: HashMap<u64, Vec<usize>>,
    series: Vec<(K, V)>,
    /// What found no place of its own.
    overflow: Option<V>,
    new: fn() -> V,
}

impl<K: Labels, V> Table<K, V> {
    /// An empty table; `new` makes the value of a new series.
    pub(crate) fn new(new: fn() -> V) -> Self {
        Self { hasher: RandomState::new(), index: HashMap::new(), series: Vec::new(), overflow: None, new }
    }

    /// The series with `labels`, made if need be.
    pub(crate) fn at(&mut self, labels: &K::Borrowed<'_>) -> &mut V {
        let hash = self.hasher.hash_one(labels);
        let known = self
            .index
            .get(&hash)
            .and_then(|places| places.iter().copied().find(|place| self.series[*place].0.is(labels)));
        if let Some(place) = known {
            return &mut self.series[place].1;
        }
        let owned = if self.series.len() < SERIES_MAX { K::own(labels) } else { None };
        let Some(owned) = owned else {
            return self.overflow.get_or_insert_with(self.new);
        };
        self.index.entry(hash).or_default().push(self.series.len());
        self.series.push((owned, (self.new)()));
        &mut self.series.last_mut().expect("it was just pushed").1
    }

    /// Every series with its labels.
    pub(crate) fn series(&self) -> impl Iterator<Item = (LabelPairs, &V)> {
        let rest = self.overflow.iter();
        let rest = rest.map(|value| (vec![("otel.metric.overflow", LabelValue::Bool(true))], value));
        self.series.iter().map(|(labels, value)| (labels.pairs(), value)).chain(rest)
    }
}
