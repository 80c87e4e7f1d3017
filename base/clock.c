/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#define DAY_S 86400
#define DAYS_PER_400_YEARS 146097
#define EPOCH 719468 /* days from 1 March of the year 0 to 1970 */
#define THURSDAY 4   /* 1 January 1970 */

void clock_utc(int64_t seconds, struct tm *tm)
{
	int64_t day = seconds / DAY_S - (seconds % DAY_S < 0), era, year;
	int64_t second = seconds - day * DAY_S;

	*tm = (struct tm){
		.tm_hour = (int)(second / 3600),
		.tm_min = (int)(second / 60 % 60),
		.tm_sec = (int)(second % 60),
		.tm_wday = (int)(((day + THURSDAY) % 7 + 7) % 7),
	};
	/* Years that begin on 1 March, so that a leap day is the last of its year. */
	day += EPOCH;
	era = day / DAYS_PER_400_YEARS - (day % DAYS_PER_400_YEARS < 0);
	day -= era * DAYS_PER_400_YEARS;
	/* Without the leap days until then (every 4 years, but not 100) a year has 365. */
	year = (day - day / 1460 + day / 36524 - day / (DAYS_PER_400_YEARS - 1)) / 365;
	day -= 365 * year + year / 4 - year / 100;
	/* March to July, August to December, January: 153 days each 5 months. */
	tm->tm_mon = (int)((5 * day + 2) / 153);
	tm->tm_mday = (int)(day - (153 * tm->tm_mon + 2) / 5) + 1;
	tm->tm_mon = (tm->tm_mon + 2) % 12;
	tm->tm_year = (int)(year + 400 * era - 1900) + (tm->tm_mon < 2);
}
