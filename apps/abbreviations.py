"""Abbreviations whose full stop ends no sentence, lower-cased and without the last stop."""

from __future__ import annotations

_BY_LANGUAGE: dict[str, str] = {
    "en": "mr mrs ms dr prof rev hon gen col lt sgt capt st jr sr messrs mt ft vs etc e.g i.e cf al fig figs eq eqs "
    "no nos vol vols pp ed eds approx dept est inc ltd co corp bros jan feb mar apr jun jul aug sep sept oct nov dec "
    "gov sen rep pres a.m p.m u.s u.k u.n ph.d b.a m.a ave blvd rd",
    "de": "abb abs allg art aufl bd bde bes bsp bspw bzgl bzw ca d.h dgl dipl dr ebd einschl etc evtl f ff fr gegr "
    "ggf ggü hg hl hrsg i.d.r inkl ing insb jh jhdt kap lt max min mind mio mrd nr o.ä op prof s sog st std str tel "
    "u.a usw u.u v.a verf vgl z.b z.t zzgl z hr med phil geb gest",
    "fr": "m mm mme mmes mlle mlles dr pr me mgr st ste cf etc p.ex ex env art chap éd fig vol av bd tél réf",
    "es": "sr sra sres srta dr dra d dña ud uds vd vds etc p.ej ej pág págs art cap núm fig av avda tel aprox ee.uu",
    "it": "sig sigg dott dott.ssa prof ing avv ecc p.es pag pagg art cap fig vol es",
    "pt": "sr sra srs dr dra exmo etc p.ex pág págs art cap núm av tel",
    "nl": "dhr mevr mw dr drs ir ing prof bijv bv d.w.z enz etc o.a nr blz m.b.t t.o.v i.p.v",
    "sv": "bl.a d.v.s dvs etc ev f.d fr.o.m kl m.m nr o.s.v osv resp s.k st t.ex t.o.m",
    "da": "bl.a ca dvs evt f.eks fx kl m.m mht nr osv pga",
    "pl": "dr hab inż mgr np itd itp tzn tzw ul al św r w zob por prof",
    "cs": "např atd apod tj tzv č str ul ing mgr mudr judr prof dr",
    "ru": "т.е т.д т.п т.к г гг в вв им ул д стр рис см тыс млн млрд руб проф акад др",
}

ABBREVIATIONS: frozenset[str] = frozenset(word for words in _BY_LANGUAGE.values() for word in words.split())
"""All of them together: a text's language is often not known when it is cut."""
