//! Which keys there are: asked of the modules' own types, so that a key is declared in one place.

use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::Cell;

type Fields = &'static [&'static str];

/// The names of the struct that `T` has at `path`; `None` if there is something else.
pub(super) fn fields<'de, T: Deserialize<'de>>(path: &[&str]) -> Option<Fields> {
    let found = Cell::new(None);
    // Always an error: it stops at the struct it looks for, or where the path leads nowhere.
    let _ = T::deserialize(Walk { path, found: &found });
    found.get()
}

/// Every key of `T`, as `section.key`.
pub(super) fn keys<'de, T: Deserialize<'de>>() -> Vec<String> {
    let mut keys = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        match fields::<T>(&path) {
            Some(names) => open.extend(names.iter().rev().map(|name| [path.as_slice(), &[*name]].concat())),
            None => keys.push(path.join(".")),
        }
    }
    keys
}

/// A deserializer with no data: it follows `path` through nested structs and notes what a struct
/// says its fields are.
struct Walk<'a> {
    path: &'a [&'a str],
    found: &'a Cell<Option<Fields>>,
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: Fields,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            self.found.set(Some(fields));
            return Err(Error::custom("found"));
        }
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The one entry that leads on.
impl<'de> MapAccess<'de> for Walk<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(head) = self.path.first() else { return Ok(None) };
        let head: StrDeserializer<'_, Error> = (*head).into_deserializer();
        seed.deserialize(head).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Walk { path: self.path.get(1..).unwrap_or_default(), found: self.found })
    }
}
