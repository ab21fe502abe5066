//! A template as a tree.

use super::fields::Field;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    /// A value by itself.
    Value(Operand),
    /// A function of values.
    Call(Function, Vec<Operand>),
    /// A method of the request's headers.
    Header(HeaderMethod, Vec<Operand>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Field(Field),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Pipeline(Pipeline),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderMethod {
    Get,
    Values,
}

macro_rules! functions {
    ($($variant:ident = $name:literal, $least:literal ..= $most:literal;)+) => {
        /// A function, under the name that templates call it by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function {
            $($variant,)+
        }

        /// The functions a template may call.
        #[must_use]
        pub fn supported_functions() -> &'static [&'static str] {
            &[$($name),+]
        }

        impl Function {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// How many arguments it takes, the piped one included.
            pub(super) fn arguments(self) -> std::ops::RangeInclusive<usize> {
                match self { $(Self::$variant => $least..=$most,)+ }
            }
        }
    };
}

functions! {
    And = "and", 1..=64;
    Eq = "eq", 2..=64;
    Ge = "ge", 2..=2;
    Gt = "gt", 2..=2;
    Html = "html", 0..=64;
    Index = "index", 1..=3;
    Js = "js", 0..=64;
    Le = "le", 2..=2;
    Len = "len", 1..=1;
    Lt = "lt", 2..=2;
    Ne = "ne", 2..=2;
    Not = "not", 1..=1;
    Or = "or", 1..=64;
    Print = "print", 0..=64;
    Printf = "printf", 1..=64;
    Println = "println", 0..=64;
    Urlquery = "urlquery", 0..=64;
}
