"""Abbreviations whose full stop ends no sentence, lower-cased and without the last stop."""

from __future__ import annotations

_BY_LANGUAGE: dict[str, str] = {
    "en": "mr mrs ms dr prof rev hon gen col lt sgt capt cpl maj st messrs mt ft vs e.g i.e cf al viz resp approx dept "
    "est gov sen rep pres ph.d b.a m.a m.d ave blvd rd fr",
    "de": "abb abs allg aufl bd bde bes bsp bspw bzgl bzw ca d.h dgl dipl dr ebd einschl evtl gegr ggf ggü hg hl hr "
    "hrsg i.d.r i.a i.v inkl exkl ing insb jh jhdt kath ev max min mind mio mrd mo nr o.g prof rd s.o s.u sog st std "
    "str tel u.a u.u v.a verf verh versch vgl vorm wg z.b z.t z.zt zzgl zzt z med phil jur rer nat geb gest ehem engl "
    "frz lat griech ital dt österr gez betr",
    "fr": "m mm mme mmes mlle mlles dr pr me mgr st ste cf p.ex ex env chap éd av apr bd boul tél réf hab j.-c cie",
    "es": "sr sra sres srta dr dra dres d dña ud uds vd vds p.ej ej aprox av avda tel admón excmo gral ing lic arq "
    "prof dpto prov cía apdo sto sta",
    "it": "sig sigg dott dott.ssa prof ing avv p.es",
    "pt": "sr sra srs dr dra exmo p.ex av tel",
    "nl": "dhr mevr mw dr drs ir ing prof bijv d.w.z o.a nr m.b.t t.o.v i.p.v",
    "sv": "bl.a d.v.s dvs ev f.d fr.o.m kl m.m nr resp s.k st t.ex t.o.m",
    "da": "bl.a ca dvs evt f.eks fx kl m.m mht nr pga",
    "pl": "dr hab inż mgr np tzn tzw ul al św r w zob por prof",
    "cs": "např tj tzv č str ul ing mgr mudr judr prof dr",
    "ru": "т.е т.к г гг в вв им ул д стр рис см тыс млн млрд руб проф акад др",
}

_NUMBERED = (
    "no nos nr núm num n.º vol vols p pp pág págs pag pagg art arts fig figs eq eqs chap cap kap abschn ed eds sec ch "
    "tab abt blz t ziff rn s ff ca c máx mín max min jan feb mar apr jun jul aug sep sept oct okt nov dec dez mär janv "
    "févr avr juil août déc ene abr ago dic"
)
_MAY_END = (
    "etc usw osv itd itp enz ff f u.a o.ä u.ä jr sr bros inc ltd co corp a.m p.m a.c d.c u.s u.k u.n ee.uu e.u u.v.m "
    "atd apod т.д т.п др"
)

ABBREVIATIONS: frozenset[str] = frozenset(word for words in _BY_LANGUAGE.values() for word in words.split())
"""Those before a name or a term, of all languages: a text's language is often not known when it is cut."""

NUMBERED: frozenset[str] = frozenset(_NUMBERED.split())
"""Those that abbreviate only beside a number: "no. 5" or "5 mar.", but "he said no." and "al mar."."""

MAY_END: frozenset[str] = frozenset(_MAY_END.split())
"""Those that often end a sentence: a usual first word behind them begins a new one."""

_STARTERS = (
    "The It He She They We I You This That These Those There Then But And So In On At If When After However Yes No "
    "Der Die Das Es Er Sie Wir Ich Ihr Dies Diese Dieser Dann Danach Aber Und Doch Im Am Auch Wenn Nach So Ja Nein Ein "
    "Eine Le La Les Il Elle Ils Elles On Nous Vous Je Ce Cette Mais Et Un Une Puis Dans El Los Las Ella Ellos Nosotros "
    "Yo Esto Este Esta Pero Y Luego En Si Sí Después Lo Una"
)

STARTERS: frozenset[str] = frozenset(_STARTERS.split())
"""Words that begin sentences often and names hardly ever."""
