//! Constants that come with a list of themselves, so that `PROTOCOL.md` can be held against all of them.

/// Defines constants of one kind. For tests `LISTED` has each with its name.
macro_rules! listed {
    ($kind:ty { $($(#[$doc:meta])* $vis:vis $name:ident = $value:expr;)* }) => {
        $($(#[$doc])* $vis const $name: $kind = $value;)*
        #[cfg(test)]
        pub(crate) const LISTED: &[(&str, $kind)] = &[$((stringify!($name), $value)),*];
    };
}

pub(crate) use listed;
