"""What stands where: fields of a workspace, of problems and of answers."""

from __future__ import annotations

# Fields of a bus and the line into it. NP, NQ are the new multipliers of the balances, F. and G. residuals.
(P, Q, L, V, LP, LQ, P_LOAD, Q_LOAD, V_MIN, V_MAX, L_MAX, FP, FQ, FV, DP, DQ, DL, DV, NP, NQ) = range(20)
LOW, HIGH, RATING, FLOW = 20, 24, 28, 32  # a bound has 4 fields, a cone 15
PLAIN_FIELDS = 47
(PH, QH, VH, HP, HQ, GP, GQ, GV, DPH, DQH, DVH, NHP, NHQ) = range(47, 60)
FLOW_HAT = 60
ALL_FIELDS = 75
# Fields of a flexible injection, its column (CP, CQ), curvature and force in the linear system, and two bounds.
(U, LEAST, MOST, A, B, CP, CQ, INVERSE, FORCE, DU) = range(10)
AT_LEAST, AT_MOST, DEVICE_FIELDS = 10, 14, 18
# Of a bound: multiplier, inverses of slack and multiplier, second-order term (then the multiplier's step).
Z, INV_S, INV_Z, K = range(4)
# Of a cone: multiplier, scaling (a, h), inverse norms of s and z, second-order term (then the multiplier's step).
ZP, ZQ, ZL, ZV, A0, A1, A2, A3, H, INV_NS, INV_NZ, KP, KQ, KL, KV = range(15)
# Of a start and of an answer: what hangs on a bus, what is left of the balances, and the voltage.
(DRAWN_P, DRAWN_Q, LEFT_P, LEFT_Q, LEFT_HAT_P, LEFT_HAT_Q, START_V, START_FIELDS) = range(8)
# Of a problem, in the row after the last bus.
GAP, COST, CONSTANT, INFEASIBLE, DUAL_LEFT, CENTRING = range(6)

# Fields of `Given`.
P_MIN, P_MAX, LINEAR, QUADRATIC, REFERENCE, TAN_PHI, Q_MIN, Q_MAX = range(8)
LOAD_KW, LOAD_KVAR, V_MIN_PU, V_MAX_PU, I_MAX_A = range(5)
# Fields of `Point`: what is read out of a workspace for every bus, injection and problem.
OF_BUS = (P, Q, L, V, LP, LQ, LOW, HIGH, RATING, FLOW, FLOW + 1, FLOW + 2, FLOW + 3)
OF_BUS_LOSSLESS = (PH, QH, VH, HP, HQ, FLOW_HAT, FLOW_HAT + 1, FLOW_HAT + 2, FLOW_HAT + 3)
OF_DEVICE = (U, AT_LEAST, AT_MOST)
# Where they stand in a `Point` (P to LQ and U as in a workspace), with multipliers of the voltage drops from `judge`.
IN_LOW, IN_HIGH, IN_RATING, IN_CONE = 6, 7, 8, 9
IN_PH, IN_QH, IN_VH, IN_HP, IN_HQ, IN_CONE_HAT, IN_DROP, IN_DROP_HAT, POINT_FIELDS = 13, 14, 15, 16, 17, 18, 22, 23, 24
IN_LEAST, IN_MOST = 1, 2
# Fields of a `Loss`.
OF_P, OF_Q = range(2)
OF_FLOW, OF_REACTIVE_FLOW, OF_CURRENT, OF_VOLTAGE, OF_PRICE, OF_REACTIVE_PRICE = range(6)
# What is found about an answer.
FOUND_PRIMAL, FOUND_DUAL, FOUND_GAP, FOUND_EXCESS, FOUND_COST, FOUND_FIELDS = range(6)
