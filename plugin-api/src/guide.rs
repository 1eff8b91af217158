#![doc = include_str!("../guide/README.md")]

macro_rules! chapters {
    ($($name:ident, $file:literal;)*) => {$(
        #[doc = include_str!(concat!("../guide/", $file))]
        pub mod $name {}
    )*};
}

chapters! {
    chapter_1_five_minutes, "1-five-minutes.md";
    chapter_2_method, "2-method.md";
    chapter_3_backend, "3-backend.md";
    chapter_4_metric, "4-metric.md";
    chapter_5_testing, "5-testing.md";
    chapter_6_shipping, "6-shipping.md";
    chapter_7_promises, "7-promises.md";
}
