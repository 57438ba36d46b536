"""The grids of the IQ formats: every weight vector, before its signs, that a format can represent.

A grid is a sorted list of vectors. Each vector is written as one number whose 2-bit (three levels)
or 3-bit (eight levels) digits are level numbers, first weight lowest. Sorted numbers have small
differences: the text below is those, one byte each or 255 and more bytes up to the next other one,
in base 85. Facts of the formats; source: ggml.
"""

from __future__ import annotations

from base64 import b85decode

import numpy as np
from numpy.typing import NDArray


def _grid(text: str, levels: tuple[int, ...], weights: int) -> NDArray[np.int64]:
    differences, carried = [], 0
    for byte in b85decode(text):
        carried += byte
        if byte < 255:
            differences.append(carried)
            carried = 0
    codes = np.cumsum(np.array(differences, np.int64))
    digit = 2 if len(levels) == 3 else 3
    numbers = codes[:, None] >> (digit * np.arange(weights)) & (2**digit - 1)
    grid: NDArray[np.int64] = np.array(levels, np.int64)[numbers]
    return grid


_TEXTS = {
    "IQ2_XXS": (
        "00IL80tW*O0tNyX0}KcW0~`Vf7+(Vn1uH}pXaXQ$|9}Gw5d$0o1{fg&3=~`f1{fwI7ZG>|Fhn5#T?GRS6d3~y0yc"
        "a+!V>@g|NsB;0}K%#AS4V0YX}%H3MQl>|GWqo1td3^N}d+~>;nuiL4O6CvH$=7|NpcC2s#}f0;eCi0{{O30}L=0s"
        "zD?FE&q8KbpNsc|NsC0|NsC0|NsC0|NsC0|NsC0(gO?#2?HDm4hkUy3~(Sp9|e35I1Up3nFttQ8F>=i|NjF63@`<"
        "|SP3D+OaK4>|NnIe2?z&Z2z)+b?f?G)0(kdR|E&=SOWer+|NsC0{{jp!D412lNdKV){|o|h|Np@M|NsC0|NsC0|N"
        "sC0|NsC0|NsC0|Nqqj2sc536e!XE@dFG6D<GgoPIWgR|D*o{{|^8E|NsB^3=|w;b!x@`ydon14*&oEGoSze|NsC0"
        "=uS0+_y7MI|NsC0JhT"
    ),
    "IQ2_XS": (
        "00IL80tW*E0|x>F0~rGX0|x>F0|^5h0s{jH0|f_R0|EmF0s{jA2Ll`e0|N;I3<wzm3~&Mi0|^5RAp;BrD+>R30|E"
        "mF0s{jH0~`Va0|^5H3LygwZ~_AZ2?Gov0}K%#fddQ{8UjN9eF6gm0tW*O1snqm2q+*5R|5<%K?rvs2yP1h|NsC0W"
        "&;8P2Lb~F2?HDg0|N;I3<?(m3~&Mi0|^5RAp;CB6as4l0tzr7|Dgf{0|^5RAp->m6dZvA3^2eHHUGH-3<53`GI|A"
        "J>sbH)|NsA70s{jA2LlWt0}L=AVFL^>2pyXuUMT-s0}L4#z(Em5Xc>(ETL=OcH8UE<D0moR1_J;8|NsC0|NsC0|N"
        "sC0|NsC0|NsAt0|EmF0s{jH0~`Va0|EyF3<Vqm3~&Mi0|^5RAp;CB1sz`l3<4Jy|G@$S0|^5K2O$FtFcfVA3=|w%"
        "W(qnC|FQ!NFa-||o)I$)8JqwA|NsC00s;dA2?GoW83PP3fddQ$D+0bmX8%|N3=tn7As}A}cnFzCIsaf3Ee}b7CIb"
        "IN|NsC0|A7MxFcc0XBUk?=CP@Ep7Wyy+U;qDKX}jT04*&oE|NsC0|NsC0|NsC0|NsC0|NpZB0|N;I3<?(m3@`#F0"
        "#^e93NR4}ryyVg9ti(h0}KKKD<CO%L}7DM|Cb0IH6{WkUjH3l2o4he|NsC0UIPp;7A|}uLh>{Jcm+QU2+?N(umAr"
        "NRin&H|NsC0|D^&30u~B(u?S6C0tO;hApfCN|Isu5a~1*ycnDm80-^$E82"
    ),
    "IQ2_S": (
        "00IL80tW*E0|x>F0~rGX0|x>F0|^5H0~Z1V0|^5R1qD|F0s{vE0|N;I90CIa2?GKH2L%He0}KKK3<F#O0|N;I3<?"
        "(m0s{vHD+L7#4*y^S0s{vE0|N;I0s|KU0|NpF0|EmF0s|Za0s{vH0|^6M0s{jA2Ll2F2L%He0|EmF0s{jH0~`Va0"
        "|^5RVFLmK2L&qy0|^5RAp;EmaRLJa2?GKH2L%Ne0|EmF0s{jH0~`ep7FPod0s{jH9|Z#m0}LS#a1jFz1_CBY|NsC"
        "0|7`;T0|x>F0|^5H8Uh0Y2?GKH2Lb~F83O_e1p^5KTml0F0tW*E0|x>F0~rGX0|x>F0|^5h0s{jH18oBZ2L%iR90"
        "d#mEdvbyaRLJa2?GKH2L%He0|EmF0s{jH0~`Va0|^5RVFLmK2Lb~F2?HDg0|N;I3?Tyya0LSi0}LSp3@|GHSOWqB"
        "2L%HO9|8jd2?Gov1AGDl0|^5RAp;B<IbsYj7XSbM|NpN70|N;I0s{vH1s4Mh0s{{m3JMli0}KKK3?Bjm3<C@y0}O"
        "Bq7zP3w3^)QF|5^hA0|x~I2?HDg0|N;I3?Tyya0LSi0}LSp3>F%J0}L=3|EL8F11$p#Iv`gA425+VLL>tJ|NsC0|"
        "NsC0|NsC0|NsC0|NsC0i~|A#2Lb~F0tW*E8Uh0Y0tW*E0|x>F90Lpm0|^6M0s{jH0|EmF0s|Za0s{vE0|N;I90CI"
        "a2?Gpa0}KKK0}LDm0|^5RAp`$?0s{jA2Ll2F2Lb~F83O_X2Lb~F2?HDg0|N;I3}FKT0|x>F0|^5h0s{jH0}Kim0}"
        "OBi0|N;I3?TyyFeU$80|f^H0|N;I90CIa2?Goy3~&Mi0|^5RAp;CB7Hb0xF#rGm|Nq4T0|N;I0s{vE0|OZY0s{vE"
        "0|N;I90CIa2?K2d0s{vE0|N;I90CIa2?Gov0}OBl0|^5RAp;B<7yp6-0s{vE0|N;I90CIa2?Gov0}OBi0|N;I3?T"
        "yyFo6RM78?J-0s{jH0}LSp3<@TJ0}L?08Ehl}|NsC0UIPLO0s{jH0~`ed2?Goy3~&Mi0|^5RAp;CB8EXtM7EAwN1"
        "p^5K3?TyyFo6RMFbW<jZj}FS0}NF&Xe$31U;qFA|NsC0|NsC0|NsC0|NsC0|NnFX0|N;I1qTHj0}KKK0|_4m3<GT"
        "g1qT8H0|^5h0s{jH11$p#8CL}b2Lmkw4F9qN0s{vE0|N;k0s{jH0}LSp3~&Mi0|^5RAp;CB3U>nx85jS-1q=f%0}"
        "N7M13V?YHUcOh|NsC0|6~IN2Lb~F3>*Rj0|^5RAp;C>1q=f%0}KkM0}L=`|62kB0|^5RAp;CB7Hb0xFjxs+Mjrp3"
        "0}K`#X;(=J|3Cl#|NsAW1qBKY2p0nkQV5nMod_5P0$2tD9{*Yc3@}L>Tp9m4|GFM}vND1K76JxfA^"
    ),
    "IQ1": (
        "00IL80tW;O0tNyb3<ClW8v+Ib3kw1U0$KqK0|Em93mgRl2?GTO0|Eja3<ClWTLK0G3kw1U0vikn3k4Sf1_B2J1P1"
        "~J0{>_O0uLMr3<U}SEC>u-0|5aK0|E~h1qB8H0|5a82Lb~F0v8Yj0|EyF0RaPR1t<dy0s{jG0R;mb3<CxKXaWWT3"
        "kw1U0vikk4;umo0t*WQ1_E0Q0|g5K91j5m3<Cuy0|EmKTLK0G3kw1U0vikn2m~7f0|NpJ3jziL|NsC0|7!sQ1q%T"
        "j0}KTN2?GHHC<6iu1Y83G0|x>F0|^5K90dje0RjO50|x~k4g(AWZ36-i8wLXj0|NpI0v`+m0uTRP1p^BK0|5vH8w"
        "3FY0tW*D0RssG0~`eh1OWp90S5yC1X%+G2Lk~C0|x>F0|FNV0RamE0s#R70S5yC0RtBT0s#X81_1*B0RsUB0s~wF"
        "0RayI0s;pG8Ug|V0|EyG0RjOC0|5g80UQJf0}loNX$21)0|EmF1p@*G0RsX991H^yYXSoW2Lv4g0RssG0RaO61_c"
        "El2mu2F2?YaS4Gsbx0s{vE0|N;K0~`zm1poj4|Nm<O1_BEU0s{jA8w>~t1RDYd0t*WQ0|NqE3<CuW9RdXm0|EyF0"
        "RbNi1_KOS2LcBK3jziL8w>>l3>*gn2LuZO1_J+F4*~-W9{~Xa2?GNH3?B>w1qcLW3=9Yt1p^5K0R#yH10e?l0RsX"
        "D0|EnF3jzlW90&{x0SFrc3JU*c0tNyL3jziL8w>*x8v+Ib76JwWUkC#Q3?Tyv0}KNK0~`wm0}BCL0tNyW0tNyb3<"
        "U!W8v+Ib3kw1U0{{R2|NsC0|NsC0|NsC0|NsC0|Nn3d1rH<%0|NpF0|G7u2nAXJ0|EmH0|5d82L%Hh0|EyF0RaO6"
        "3j+cd0|E*H0}BBGV+;cV4;&E#1quZq3laZa6a)|)0|EyF0RamE0|NpV1p@~H0}BBNSOEhC2Lk~C0|x~K7XtwS0|x"
        ";E0RaL52m=8D0~rDV0|^5G0RsUG0|HkB1PcKJ0tW*H7XkwV2mt{D0RssG0~rJb3IPlQ0{>tP1O*En2L}ZM2?GKH9"
        "1H^j0}NaQ0R#pF0RssG0vZJc2LS>B0RsmD0|5ja0|^5G0to{G18pt>0}KNK3I!_>|NsC0|6v0G0RssG1qTBK7X<?"
        "e0|5a83<Dkm3<C%O1p{0I0RaaC0RaL52L%BF0v7`T0RsmC0RjO50s#RB0|5a883POh0RaOC1qD|H3<CuR10Dkf2L"
        "k~C0|^5l3jzZK0Sf<N0Sp5H0RjOC1OoyW0|5a80R{mB0RaL50S5sB0RaOS2m%KK0RaOD0|5nB0RjO50|x;C0s#R7"
        "0S5yC0RtBS0RjO50s#jB0RjO50s#RA0RsU60s#RR0|5j91_1*B0RjOC0|5a8R{;S60s;XD0|5g82LS;B0RaL57z6"
        "<V0RaX90RjO50s#RB0|5jX0|5d70S5#H2m=8E0smY90RsmG0|^Nm0|EyF0RaL52Lb{C9R~*j0|N;NSOEhC2Lk~C0"
        "}LDk0RaOC0RaL50RjO52Lk~C0~iDZ2m=8D0s#zP1PuiS1pxyb0|5vG0RjOD0|NpV2?zrL0s;sB|NsC0X%7Me3?B>"
        "y0RjRC0|EmW6%Skk0s{#H3;_fK90Uji0Rs#H1R4ei0}KTNXaxf&0R;~M0th7x1rPsi0RsU92L%Hc0s{jA2Lk~C0|"
        "5pC10Mkd2Lb{C0RjRC0|i_I0tW;E11kXm0|x;E0RaOD0|5a89RmRe1OWp92m=8ES_cdZ1_A*W1p@*H0|5a70tN*G"
        "7y<(Y3IYNF2Lu8H|7`;d91#Nr2M8Pt2M${U3<V4W0s|KT1OWmG0|5a82L%Nf0tO2V0|5kR1p+Ap1qTHK0tx{H9S#"
        "Hn4FCWC|NsC0|NsC0|NsC0|NsC0|Nn0S1_BlW1_B!k0RsX93>yLl0t*WQ1_E0Q0|EmK90LUh0s{d80Sf{H90Usj0"
        "}NXN1_BEU0tNyn0|g8l0tNyL3jziL|7!&(0}TWP2LlBw1!xEf0|g8N7XbtV2?GHE0|5&G0s<EU0s{vE0|O3g1p^E"
        "m0|fyF1q1;H1q2%m2@3yR0tNyL3jziL7X%Cg1q=ii0tNyL3jziLTLB9L0uLMm0s{vE0|f^IArS)%TLK0G3kw1U0v"
        "iki0xALq0t*WQ1_J;8|NsAB3<UxK3>*am3<ClW0UHbh0s{<O0|EmF1p@*H0|EmV1q%TK0RaOE10Mnm0|N;I0s~wO"
        "0|g8p0s{vE0|O2N91j8$|5*b93IziW8VUyk0RaL52LS;C9|8;l0RssLR|NwC1_1*B0RspG1OXQV0RaOC0RaL50Rj"
        "O52Lk~C0~iDY2>}8D0RsUB0s{jAR|5<M1P2BK90LIe0RsU83<DYh1px>G0S^KL|6LIS3>*at0s{dA3IQMt1p^FU0"
        "s{vE0|NpE0RsXW0s{jA2Lk~C0|^5G1Q!Dg0s{pH1z!*l9|8jh1p^5r3<CiH|NsC0|8D{Y0t*WQ1_B!l0|Eml0tNy"
        "L3jziLTLcIL0s{do0|*2I0tW*j3jzcKX$ArY2?+)Q8w>>l3>yLl0t*WQ1_J+Z3>*Ut1OWpA2Lu5E0UUt?2Lb~F4g"
        "(nj3<CiH0}KTh0|5a82?GOd3<U%S1Rnwf2m=8E2m&Mu1pxyH0|NhB0tNyW0tNyn0|Eml0tNyL3jziLTMq>Y1RM_q"
        "1qTHKCkAQ)1_BlW1_CDo0xALq0t*WQ1_A"
    ),
    "IQ3_XXS": (
        "00II90t5j92MHMh1Of#D2LuBG2MY`c0s;jG0tW&F3I+}Y1_1&KBNG$_3k(7T1``l77Zd~n6%G&r1p)^G1p)#K0T="
        "=Y2Ldkw1p)^LA_f8u2@Mbn1S2Q}5)%wf4j=*t0tEsD0|_4j0s{gE2O9(d2m%KN0RjyH4HO3iECeAA7!(Q{MFI;K9"
        "0vji0u>Df1_BNV3j!Mg1q~Gt4-!2O69xth8y^xCC>0b74gw4WO%x9S5C#z*A0-PR4i!xU0uC}47YGIr7atBF2q_&"
        "41S1F+Pb>~H5CRSzARZ+o21X$zF(?i)0s;XN5G)ER8wC~(4izB~9|96Y"
    ),
    "IQ3_S": (
        "009950s#R50s;a71O^2H0|Ej91p)^H0|5a60t5jB0|NvC1P2WS1qJ~G0s#X90|WyE1_J^D0u2KQ1_T2F2Lb~I1Og"
        "2L1Op2M0s{sH0|pNY0t^BK1qK8H4+RSY0uB)m2Lb{N0t5vO1QY=Q0t5j90s;X72Ll2Q0s{#K0RjU81O*2J1_uHT1"
        "_BBL0s#aD1_KHM3I_uN0RsjG0R#mR1`7fO0u2HO1OfyV2LlEN0uLty0}TQj0tEsG3<MDd2mt~D0s#U70s{gB0Rjg"
        "C0s{gK0RsX90tN#F0|NvD1_u}e0}28K2LcKN3IhZJ0|W^I1p)^K4hsee0|x^H83P9e2@L@Y4G01S3LFF!1PuZU1s"
        "Vqe0s;dE0s;jB0|E*L2m%5J1p*Ba3IqZQ1_}ZU83zOf0t5jG0t5yQ2nGcN2N4DY4F>`X1quoc6B8f;4FU@z1O^5K"
        "0|N&K5DEnX0tW^K1_lHa0tE#G3Iz`X1`GuP1p)^IBLWf&0T~Pe3LzO06c_~y3kDem1O^TS0|N{O1p)#E2MHhs2?_"
        "-U4HpFg4-Ewj1_lER3JfF+69P9N0uDC<0t^Bb5D*6)77_*v1qKKV1rIe24-Nwv6crmO0yP8!2?7iP3<eMf3l9Pu0"
        "|W*G2N4+<0}d7h1_c-@5Fi&P"
    ),
}

_THREE = (8, 25, 43)

# name -> [vectors, weights per vector]
GRIDS: dict[str, NDArray[np.int64]] = {
    "IQ2_XXS": _grid(_TEXTS["IQ2_XXS"], _THREE, 8),
    "IQ2_XS": _grid(_TEXTS["IQ2_XS"], _THREE, 8),
    "IQ2_S": _grid(_TEXTS["IQ2_S"], _THREE, 8),
    "IQ1": _grid(_TEXTS["IQ1"], (-1, 0, 1), 8),
    "IQ3_XXS": _grid(_TEXTS["IQ3_XXS"], (4, 12, 20, 28, 36, 44, 52, 62), 4),
    "IQ3_S": _grid(_TEXTS["IQ3_S"], (1, 3, 5, 7, 9, 11, 13, 15), 4),
}
