/* An extension that writes records of its own into the log, as column stores and graph databases do. */
#include "postgres.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

#define MANAGER 128

void _PG_init(void);
PG_FUNCTION_INFO_V1(write_record);

static void redo(XLogReaderState *record) {}
static void describe(StringInfo text, XLogReaderState *record) {}
static const char *identify(uint8 info) { return "RECORD"; }

static RmgrData manager = {
    .rm_name = "everpoint_test",
    .rm_redo = redo,
    .rm_desc = describe,
    .rm_identify = identify,
};

void _PG_init(void)
{
    RegisterCustomRmgr(MANAGER, &manager);
}

Datum write_record(PG_FUNCTION_ARGS)
{
    char data[] = "of an extension";

    XLogBeginInsert();
    XLogRegisterData(data, sizeof(data));
    XLogFlush(XLogInsert(MANAGER, 0));
    PG_RETURN_VOID();
}
